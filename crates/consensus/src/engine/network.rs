//! What carries messages: libp2p by Malachite's network crate. Gossip for what everybody should hear, requests for decided
//! blocks. Who is connected proves nothing: whatever counts is signed by a validator.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::{B256, Bytes};
use arc_malachitebft_metrics::{Registry, SharedRegistry};
use arc_malachitebft_network::handle::{CtrlHandle, RecvHandle};
use arc_malachitebft_network::{
    Channel, ChannelNames, DiscoveryConfig, Event, GossipSubConfig, Keypair, Multiaddr, NetworkIdentity,
    PeerId, ProtocolNames, PubSubMaxSizePerTopic, PubSubProtocol, TransportProtocol,
};
use arc_malachitebft_sync::RawMessage;
use isobit_chain::{Chain, ChainError};
use isobit_proof::Key;
use isobit_tensor::Hash;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::Config;
use super::worker::In;
use crate::validator::Message;
use crate::wire::{self, Gossip, MAX_MESSAGE};

/// A request that is to be answered: its id alone has no name outside of libp2p.
pub(super) type Request = RawMessage;

/// How long transactions are gathered before they are told together, and how many bytes at most.
const GATHER: Duration = Duration::from_millis(10);
const MAX_GATHERED: usize = 1 << 20;
/// Most bytes of transactions that wait to be told; what comes beyond is told later, as it waits in the pool.
const MAX_UNTOLD: usize = 16 << 20;
/// Most messages that wait to be sent.
const QUEUE: usize = 4_096;

/// The key of the connections of a validator's process at an address: always the same, and of no use for signing blocks. It comes
/// of a signature that is made for nothing else. (Two processes with one key must not look like one: they would not be seen
/// contradicting each other.)
fn connection_key(key: &Key, listen: &Multiaddr) -> Keypair {
    let what = format!("isobit: the key of my connections at {listen}");
    let signature = key.sign(B256::from(Hash::of(what.as_bytes()).0));
    let seed = Hash::of(&signature.as_bytes());
    Keypair::ed25519_from_bytes(seed.0).expect("any 32 bytes are a key")
}

/// What is to be sent.
enum Out {
    Gossip(Channel, Vec<u8>),
    Ask(PeerId, u64),
    Answer(Request, Vec<u8>),
}

/// Where the deciding thread, and whoever takes transactions in, put what is to be sent.
#[derive(Clone)]
pub(super) struct Outbox {
    out: mpsc::Sender<Out>,
    transactions: Arc<Mutex<(Vec<Bytes>, usize)>>,
}

impl Outbox {
    /// Tells everybody. If more waits than the network takes it is lost, as anything may be on the way.
    pub(super) fn gossip(&self, gossip: &Gossip) {
        let channel = match gossip {
            Gossip::Consensus(message) => match **message {
                Message::Offer(_) => Channel::ProposalParts,
                Message::Consensus(_) => Channel::Consensus,
                _ => Channel::Liveness,
            },
            _ => Channel::Liveness,
        };
        let _ = self.out.try_send(Out::Gossip(channel, gossip.encode()));
    }

    /// Tells everybody of a transaction, with others.
    pub(super) fn transaction(&self, raw: &[u8]) {
        let mut untold = self.transactions.lock().unwrap_or_else(|e| e.into_inner());
        if untold.1 < MAX_UNTOLD {
            untold.1 += raw.len();
            untold.0.push(Bytes::copy_from_slice(raw));
        }
    }

    /// Asks a peer for decided blocks from a height on.
    pub(super) fn ask(&self, peer: PeerId, from: u64) {
        let _ = self.out.try_send(Out::Ask(peer, from)); // asked again after a while
    }

    /// Answers a peer that has asked.
    pub(super) fn answer(&self, request: Request, blocks: &[Bytes]) {
        let _ = self.out.try_send(Out::Answer(request, wire::encode_list(blocks))); // asked again after a while
    }

    /// Transactions to be told together.
    fn gathered(&self) -> Vec<Vec<Bytes>> {
        let untold = std::mem::take(&mut *self.transactions.lock().unwrap_or_else(|e| e.into_inner())).0;
        let (mut all, mut bytes) = (Vec::<Vec<Bytes>>::new(), 0);
        for raw in untold {
            match all.last_mut().filter(|_| bytes + raw.len() <= MAX_GATHERED) {
                Some(last) => {
                    bytes += raw.len();
                    last.push(raw);
                }
                None => {
                    bytes = raw.len();
                    all.push(vec![raw]);
                }
            }
        }
        all
    }
}

/// The network's runtime and task.
pub(super) struct Carrier {
    runtime: Option<Runtime>,
    outbox: Outbox,
}

impl Carrier {
    pub(super) fn start(
        key: &Key,
        chain: &Arc<Chain>,
        config: &Config,
        inputs: mpsc::Sender<In>,
        peers: Arc<AtomicUsize>,
    ) -> Result<Self, ChainError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("network")
            .enable_all()
            .build()
            .map_err(ChainError::store)?;
        let address = key.address().to_string();
        let identity =
            NetworkIdentity::new(address.clone(), connection_key(key, &config.listen), Some(address));
        let registry = SharedRegistry::new(Registry::default(), None);
        let settings = settings(chain, config);
        let spawned = arc_malachitebft_network::spawn(identity, settings, registry);
        let handle = runtime.block_on(spawned).map_err(|e| ChainError::store(format!("the network: {e}")))?;
        let (receiver, sender) = handle.split();
        let (out, to_send) = mpsc::channel(QUEUE);
        let outbox = Outbox { out, transactions: Arc::default() };
        let incoming = Incoming { chain: chain.clone(), inputs, peers };
        runtime.spawn(incoming.listen(receiver));
        runtime.spawn(send(sender, to_send, outbox.clone()));
        Ok(Self { runtime: Some(runtime), outbox })
    }

    pub(super) fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

fn settings(chain: &Chain, config: &Config) -> arc_malachitebft_network::Config {
    // Chains that differ in anything do not even talk.
    let id = format!("{}/{}", chain.genesis().params.chain_id, chain.genesis().commitment());
    let name = |what: &str| format!("/isobit/{what}/2/{id}");
    let discovery = DiscoveryConfig {
        enabled: false,
        max_connections_per_ip: 64,
        ip_throttle_duration: Duration::ZERO,
        // Each failure would be waited for longer; a peer that we were told of is tried every second or two instead.
        dial_max_retries: 1,
        ..DiscoveryConfig::default()
    };
    arc_malachitebft_network::Config {
        listen_addr: config.listen.clone(),
        persistent_peers: config.peers.clone(),
        persistent_peers_only: false,
        discovery,
        idle_connection_timeout: Duration::from_secs(600),
        transport: TransportProtocol::Tcp,
        gossipsub: GossipSubConfig::default(),
        pubsub_protocol: PubSubProtocol::GossipSub,
        channel_names: ChannelNames::default(),
        rpc_max_size: MAX_MESSAGE + (1 << 20),
        pubsub_max_size: MAX_MESSAGE + (1 << 20),
        pubsub_max_size_per_topic: PubSubMaxSizePerTopic::default(),
        sync_request_timeout: Duration::from_secs(5),
        sync_max_request_size: 1 << 10,
        sync_parallel_requests: 4,
        enable_consensus: true,
        enable_sync: true,
        protocol_names: ProtocolNames {
            consensus: name("consensus"),
            discovery_kad: name("kad"),
            discovery_regres: name("peers"),
            sync: name("sync"),
            validator_proof: name("proof"),
        },
    }
}

/// What comes from the network.
struct Incoming {
    chain: Arc<Chain>,
    inputs: mpsc::Sender<In>,
    peers: Arc<AtomicUsize>,
}

impl Incoming {
    async fn listen(self, mut receiver: RecvHandle) {
        // Who speaks another protocol is disconnected without having been connected.
        let mut connected = BTreeSet::new();
        while let Some(event) = receiver.recv().await {
            match event {
                Event::Listening(address) => tracing::info!("listening on {address}"),
                Event::PeerConnected(peer) => {
                    connected.insert(peer);
                    tracing::info!("connected with {peer}");
                }
                Event::PeerDisconnected(peer) => {
                    connected.remove(&peer);
                    tracing::info!("no longer connected with {peer}");
                }
                Event::ConsensusMessage(_, peer, _, bytes) | Event::LivenessMessage(_, peer, bytes) => {
                    self.gossip(peer, &bytes);
                }
                Event::Sync(ref request @ RawMessage::Request { ref body, .. }) => {
                    if let Ok(from) = wire::decode_number(body) {
                        self.tell(In::Asked(request.clone(), from));
                    }
                }
                Event::Sync(RawMessage::Response { peer, body, .. }) => {
                    let blocks = wire::decode_list(&body).and_then(|blocks| {
                        blocks.iter().map(|b| Message::decode(b)).collect::<Result<Vec<_>, _>>()
                    });
                    match blocks {
                        Ok(blocks) => self.tell(In::Answer(peer, blocks)),
                        Err(e) => tracing::debug!("{peer}: {e}"),
                    }
                }
                _ => {}
            }
            self.peers.store(connected.len(), Ordering::Relaxed);
        }
    }

    fn gossip(&self, peer: PeerId, bytes: &[u8]) {
        match Gossip::decode(bytes) {
            Ok(Gossip::Consensus(message)) => match *message {
                Message::Decided { .. } => {} // only who asked gets them
                message => self.tell(In::Message(message)),
            },
            Ok(Gossip::Status(head)) => self.tell(In::Status(peer, head)),
            Ok(Gossip::Transactions(all)) => {
                let taken = all.iter().filter(|raw| self.chain.take_in(raw).is_ok()).count();
                if taken > 0 {
                    self.tell(In::Wake);
                }
            }
            Err(e) => tracing::debug!("{peer}: {e}"),
        }
    }

    /// What the deciding thread has no time for is lost, as it could have been on the way.
    fn tell(&self, input: In) {
        if self.inputs.try_send(input).is_err() {
            tracing::debug!("a message was dropped: too many wait");
        }
    }
}

async fn send(sender: CtrlHandle, mut out: mpsc::Receiver<Out>, outbox: Outbox) {
    let mut tick = tokio::time::interval(GATHER);
    loop {
        let sent = tokio::select! {
            next = out.recv() => match next {
                None => return,
                Some(Out::Gossip(channel, bytes)) => sender.publish(channel, bytes.into()).await,
                Some(Out::Ask(peer, from)) => {
                    sender.sync_request(peer, wire::encode_number(from).into()).await.map(drop)
                }
                Some(Out::Answer(RawMessage::Request { request_id, .. }, bytes)) => {
                    sender.sync_reply(request_id, bytes.into()).await
                }
                Some(Out::Answer(RawMessage::Response { .. }, _)) => Ok(()),
            },
            _ = tick.tick() => {
                let mut done = Ok(());
                for transactions in outbox.gathered() {
                    let bytes = Gossip::Transactions(transactions).encode();
                    done = done.and(sender.publish(Channel::Liveness, bytes.into()).await);
                }
                done
            }
        };
        if sent.is_err() {
            return; // the network has stopped
        }
    }
}
