//! A chain in memory with funded keys, blocks made by hand, and what holds after each of them asserted.

use alloy_primitives::{Address, B256, Bytes, TxKind};
use alloy_sol_types::SolEvent;
use isobit_chain::abi::IIsobit;
use isobit_chain::{Block, Built, Chain, Genesis, LEDGER, Order, Store, ledger_order};
use isobit_ledger::{Action, COIN, Inputs, Job, Level, Params, commitment};
use isobit_proof::{Key, Outcome, Receipt};
use isobit_tensor::Hash;

pub(crate) const MODEL: B256 = B256::repeat_byte(0xaa);
pub(crate) const SALT: B256 = B256::repeat_byte(9);

pub(crate) fn keys(n: usize) -> Vec<Key> {
    (0..n).map(|i| Key::from_hex(&format!("{:064x}", i + 1)).unwrap()).collect()
}

pub(crate) fn genesis(keys: &[Key]) -> Genesis {
    let params = Params { commit_window: 50, reveal_window: 50, unbonding: 100, ..Params::default() };
    Genesis::new(params, keys.iter().map(|k| (k.address(), 100_000 * COIN)))
}

pub(crate) fn memory() -> Store {
    Store::in_memory().unwrap()
}

pub(crate) struct World {
    pub(crate) chain: Chain,
    pub(crate) keys: Vec<Key>,
    pub(crate) blocks: Vec<Block>,
}

impl World {
    /// Key 0 asks, the last key owns the model, the others are nodes.
    pub(crate) fn new(nodes: usize) -> Self {
        let keys = keys(nodes + 2);
        let chain = Chain::in_store(memory(), genesis(&keys)).unwrap();
        let mut w = Self { chain, keys, blocks: Vec::new() };
        let publish =
            Action::Publish { model: MODEL, name: "digits".into(), uri: String::new(), unit_fee: 1 };
        w.send(nodes + 1, &publish);
        for i in 1..=nodes {
            w.send(i, &Action::Join { stake: 2_000 * COIN, endpoint: String::new() });
        }
        let built = w.block();
        assert!(built.receipts.iter().all(|r| r.status()));
        w
    }

    /// Signs an order with the key's next nonce and hands it in.
    pub(crate) fn order(&mut self, key: usize, mut order: Order) -> Result<B256, String> {
        let key = &self.keys[key];
        order.nonce = self.chain.pending_nonce(key.address()).unwrap();
        order.gas = if order.gas == 0 { 3_000_000 } else { order.gas };
        order.max_fee_per_gas = 2_000_000_000;
        let (hash, raw) = order.sign(key, self.chain.genesis().params.chain_id);
        self.chain.submit(&raw).map_err(|e| e.to_string())?;
        Ok(hash)
    }

    pub(crate) fn send(&mut self, key: usize, action: &Action) -> B256 {
        let order = ledger_order(action, &self.chain.genesis().params);
        self.order(key, order).unwrap()
    }

    pub(crate) fn call(&mut self, key: usize, to: Address, value: u128, data: Vec<u8>) -> B256 {
        let order =
            Order { nonce: 0, gas: 0, max_fee_per_gas: 0, tip: 0, to: to.into(), value, data: data.into() };
        self.order(key, order).unwrap()
    }

    pub(crate) fn create(&mut self, key: usize, code: Vec<u8>) -> Address {
        let from = self.keys[key].address();
        let nonce = self.chain.pending_nonce(from).unwrap();
        let order = Order {
            nonce: 0,
            gas: 0,
            max_fee_per_gas: 0,
            tip: 0,
            to: TxKind::Create,
            value: 0,
            data: code.into(),
        };
        self.order(key, order).unwrap();
        assert!(self.block().receipts[0].status());
        from.create(nonce)
    }

    /// A block of what waits, a second after the last one. All coins are counted after it.
    pub(crate) fn block(&mut self) -> Built {
        let head = self.chain.head();
        let time = head.header.timestamp + 1;
        let built = self.chain.propose(time, Address::repeat_byte(0xbe)).unwrap();
        self.chain.commit(&built).unwrap();
        self.chain.head().check_coins().unwrap();
        self.blocks.push(built.block.clone());
        built
    }

    pub(crate) fn post_action(&self, level: Level) -> Action {
        Action::Post {
            model: MODEL,
            inputs: Inputs::Root(B256::repeat_byte(1)),
            seed: 0,
            level,
            max_fee: 30 * COIN,
            deadline: 0,
            callback_gas: 0,
        }
    }

    pub(crate) fn receipt(&self, job: &Job, node: Address, outputs: B256) -> Receipt {
        Receipt {
            chain_id: self.chain.genesis().params.chain_id,
            job: Hash(job.id.0),
            model: Hash(job.model.0),
            inputs: Hash(job.inputs.0),
            seed: job.seed,
            outcome: Outcome::Ok { outputs: Hash(outputs.0) },
            cost: 1_000,
            node,
        }
    }

    pub(crate) fn key_of(&self, node: Address) -> usize {
        self.keys.iter().position(|k| k.address() == node).unwrap()
    }

    /// Commits each drawn node to these outputs, then reveals them, with a block after each.
    pub(crate) fn answer(&mut self, id: B256, outputs: &dyn Fn(usize) -> B256) {
        let job = self.chain.job(id).unwrap().unwrap();
        for (i, seat) in job.seats.iter().enumerate() {
            let digest = self.receipt(&job, seat.node, outputs(i)).digest();
            let commitment = commitment(seat.node, id, digest, SALT);
            self.send(self.key_of(seat.node), &Action::Commit { job: id, commitment });
        }
        assert!(self.block().receipts.iter().all(|r| r.status()));
        for (i, seat) in job.seats.iter().enumerate() {
            let key = self.key_of(seat.node);
            let receipt = self.receipt(&job, seat.node, outputs(i)).sign(&self.keys[key]);
            let receipt = Bytes::from(receipt.signature.as_bytes().to_vec());
            let reveal =
                Action::Reveal { job: id, outputs: outputs(i), failure: 0, cost: 1_000, receipt, salt: SALT };
            self.send(key, &reveal);
        }
        let built = self.block();
        assert!(built.receipts[..job.seats.len()].iter().all(|r| r.status()));
    }

    /// The one job that a block posted.
    pub(crate) fn posted(built: &Built) -> IIsobit::Posted {
        let logs = built.receipts.iter().flat_map(|r| r.logs()).filter(|l| l.address == LEDGER);
        logs.filter_map(|l| IIsobit::Posted::decode_log_data(&l.data).ok()).next().expect("a job is posted")
    }

    /// Executes every block on a chain of its own: the same states, block for block.
    pub(crate) fn replay(&self) {
        let other = Chain::in_store(memory(), self.chain.genesis().clone()).unwrap();
        for block in &self.blocks {
            let block = Block::decode(&block.encode()).unwrap();
            let built = other.head().execute(&block).unwrap();
            other.commit(&built).unwrap();
        }
        assert_eq!(other.head().hash, self.chain.head().hash);
    }
}

/// The bytecode of one of the contracts, with constructor arguments after it.
pub(crate) fn bytecode(name: &str, arguments: &[u8]) -> Vec<u8> {
    let path = format!("{}/../../contracts/artifacts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let at = text.find("\"bytecode\": \"0x").unwrap() + 15;
    let end = at + text[at..].find('"').unwrap();
    let mut code = alloy_primitives::hex::decode(&text[at..end]).unwrap();
    code.extend_from_slice(arguments);
    code
}
