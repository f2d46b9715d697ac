//! The HTTP API: Ethereum JSON-RPC at `/` (`isobit-rpc`), and what Ethereum has no words for under `/v1`. Amounts are decimal strings in base units; ids and hashes hexadecimal.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /healthz` | `ok` |
//! | `GET /metrics` | Prometheus metrics (OpenMetrics text) |
//! | `POST /v1/faucet` | `{"address"}`; gives 10 ISO to an address that has less than 1, in networks that have a faucet |
//! | `GET /v1/status` | chain, height, nodes, jobs, coins |
//! | `GET /v1/params` | what the network agreed on at genesis |
//! | `GET /v1/wait?height=H` | waits up to a second for a block after H; `{"height"}` |
//! | `GET /v1/accounts/{address}` | `{"balance", "nonce", "stake", "posted", "base_fee"}` |
//! | `GET /v1/validators` | `[{"validator", "weight"}]`: who votes on the next block |
//! | `GET /v1/models` | `[{"model", "name"}]` |
//! | `GET /v1/models/{model}/manifest` | the model's manifest, if it is on the ledger |
//! | `GET /artela-network/artela-rollkit/inference/tx/{id}` | an inference's output, as OpenGradient's SDK asks for it |
//! | `GET /v1/names?name=N` | `{"model"}` that the name stands for |
//! | `GET /v1/jobs/{id}` | a job, as an object and as RLP |
//! | `GET /v1/nodes/{address}/jobs` | jobs in progress that the node was drawn for |
//! | `GET /v1/blocks/{height}` | a block's RLP |
//! | `GET /v1/tensors/{root}` | tensors on the ledger, as `isobitV1` |
//! | `POST /v1/estimate` | `{"from", "to", "value", "data"}`; `{"gas"}`, or why it would fail |
//! | `POST /v1/transactions` | a signed transaction (EIP-2718) as the body; `{"hash"}` once it waits for a block |
//! | `GET /v1/transactions/{hash}` | waits until it is in a block on disk; `{"height", "succeeded"}` |
//! | `POST /v2/models/{name}/infer?replicas=N` | an inference in the JSON form of the Open Inference Protocol, paid by HTTP 402 (x402, version 2) |
//! | `GET /x402/supported`, `POST /x402/verify`, `POST /x402/settle` | an x402 facilitator for Wrapped ISO |
//! | `POST /identitytoolkit/v3/relyingparty/verifyPassword`, `…/signupNewUser`, `POST /v1/token` | login, sign-up and refresh in Firebase's form |
//! | `/api/v0/models/…` | models, versions and files, as OpenGradient's SDK asks for them |
//! | `GET /v1/blobs/{hash}` | the bytes |
//! | `POST /v1/blobs` | stores the body; `{"hash"}` |
//!
//! Errors are `{"error": "..."}` with status 400 (refused), 404 (absent) or 500.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context as Poll;
use std::time::Duration;

use alloy_primitives::{Address, B256, hex};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use isobit_chain::Order;
use isobit_ledger::Job;
use isobit_tensor::Hash;
use serde_json::{Value, json};
use tower_http::cors::{Any, CorsLayer};

use crate::payments::Question;
use crate::serving::{self, Served, Serving};
use crate::{Faucet, Gateway, Local, ModelHub, NodeError, hub_api, metrics, opengradient};

/// Longest body of a request.
const MAX_BODY: usize = 4 << 30;

/// What a process offers beside the network.
#[derive(Debug, Default)]
pub struct Offers {
    /// Coins for whoever asks.
    pub faucet: Option<Faucet>,
    /// Inferences that are paid for by HTTP 402, and settling such payments for others.
    pub serving: Option<Serving>,
    /// Models of people with accounts, and whether anybody can make one.
    pub hub: Option<(ModelHub, bool)>,
}

/// Serves the network of this process until `stop` completes; requests in progress are answered.
pub async fn serve(
    listener: tokio::net::TcpListener,
    local: Local,
    offers: Offers,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let faucet: Arc<Option<Faucet>> = Arc::new(offers.faucet);
    let give = move |State(local): State<Local>, body: Bytes| gift(local, faucet.clone(), body);
    let hub =
        offers.hub.map(|(hub, is_open)| hub_api::routes(Arc::new(hub), is_open).with_state(local.clone()));
    let paid = offers.serving.map(|serving| paid(Arc::new(serving)).with_state(local.clone()));
    let (stop_rpc, rpc_handle) = jsonrpsee::server::stop_channel();
    let rpc = isobit_rpc::service(local.chain.clone(), stop_rpc);
    // Pages of any origin may ask, as of any Ethereum node: nothing here knows who asks, and nobody is signed in.
    let cors = CorsLayer::new().allow_origin(Any).allow_methods(Any).allow_headers(Any).expose_headers(Any);
    let app = Router::new()
        .route_service("/", Rpc(rpc))
        .route("/healthz", get(async || "ok"))
        .route("/metrics", get(metrics))
        .route("/v1/faucet", post(give))
        .route("/v1/status", get(status))
        .route("/v1/params", get(params))
        .route("/v1/wait", get(wait))
        .route("/v1/accounts/{address}", get(account))
        .route("/v1/validators", get(validators))
        .route("/v1/models", get(models))
        .route("/v1/jobs/{id}", get(job))
        .route("/v1/nodes/{address}/jobs", get(assigned))
        .route("/v1/blocks/{height}", get(block))
        .route("/artela-network/artela-rollkit/inference/tx/{id}", get(opengradient::inference))
        .route("/v1/models/{model}/manifest", get(manifest))
        .route("/v1/names", get(named))
        .route("/v1/tensors/{root}", get(tensors))
        .route("/v1/estimate", post(estimate))
        .route("/v1/transactions", post(transact))
        .route("/v1/transactions/{hash}", get(sent))
        .route("/v1/blobs", post(put_blob))
        .route("/v1/blobs/{hash}", get(get_blob))
        .with_state(local)
        .merge(paid.unwrap_or_default())
        .merge(hub.unwrap_or_default())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(cors);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let stop = async move {
        stop.await;
        drop(rpc_handle); // WebSockets end
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

/// The JSON-RPC service with errors as responses, as axum wants it.
#[derive(Clone)]
struct Rpc(isobit_rpc::Service);

impl tower_service::Service<Request> for Rpc {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poll<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            Ok(answer.await.map_or_else(
                |e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
                |r| r.map(axum::body::Body::new),
            ))
        })
    }
}

struct Failure(NodeError);

impl From<NodeError> for Failure {
    fn from(e: NodeError) -> Self {
        Self(e)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        use isobit_hub::BlobError;
        let status = match &self.0 {
            NodeError::Absent { .. } | NodeError::Blob(BlobError::Absent(_)) => StatusCode::NOT_FOUND,
            NodeError::Refused(_) | NodeError::Malformed(_) | NodeError::Blob(BlobError::TooLong { .. }) => {
                StatusCode::BAD_REQUEST
            }
            NodeError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.0.to_string() }))).into_response()
    }
}

type Answer = Result<Json<Value>, Failure>;

/// Runs what may block on disk or on the sequencer away from the server's own threads.
async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(f).await.map_err(|_| NodeError::Stopping)?.map_err(Failure)
}

fn parse<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure(NodeError::Malformed(format!("'{text}' is no {what}"))))
}

async fn metrics(State(local): State<Local>) -> Result<Response, Failure> {
    let text = blocking(move || metrics::text(&local)).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(axum::http::header::CONTENT_TYPE, kind)], text).into_response())
}

async fn gift(local: Local, faucet: Arc<Option<Faucet>>, body: Bytes) -> Answer {
    let to = serde_json::from_slice::<Value>(&body).ok();
    let to = to.and_then(|v| v.get("address")?.as_str()?.parse::<Address>().ok());
    let to = to.ok_or_else(|| NodeError::Malformed("the body is not {\"address\": \"0x...\"}".into()))?;
    let given = blocking(move || match &*faucet {
        Some(faucet) => faucet.give(&local, to),
        None => Err(NodeError::Refused(
            "this network has no faucet; `isobit up --faucet` of a development network has".into(),
        )),
    });
    Ok(Json(json!({ "given": given.await?.to_string() })))
}

#[derive(serde::Deserialize)]
struct Replicas {
    replicas: Option<u8>,
}

/// Routes that are paid for, or settle payments.
fn paid(serving: Arc<Serving>) -> Router<Local> {
    let (s, v, t) = (serving.clone(), serving.clone(), serving.clone());
    let infer = move |State(local): State<Local>,
                      Path(name),
                      Query(q): Query<Replicas>,
                      headers: HeaderMap,
                      uri: Uri,
                      body: Bytes| {
        infer(serving.clone(), local, name, q.replicas.unwrap_or(1), headers, uri, body)
    };
    let question = |body: &Bytes| {
        serde_json::from_slice::<Question>(body)
            .map_err(|e| Failure(NodeError::Malformed(format!("not a question of x402, version 2: {e}"))))
    };
    let verify = move |State(local): State<Local>, body: Bytes| {
        let s = s.clone();
        async move {
            let question = question(&body)?;
            blocking(move || Ok(Json(s.till.verify(&local, &question)))).await
        }
    };
    let settle = move |State(local): State<Local>, body: Bytes| {
        let v = v.clone();
        async move {
            let question = question(&body)?;
            blocking(move || Ok(Json(v.till.settle(&local, &question)))).await
        }
    };
    Router::new()
        .route("/v2/models/{name}/infer", post(infer))
        .route("/x402/supported", get(async move |State(local): State<Local>| Json(t.till.supported(&local))))
        .route("/x402/verify", post(verify))
        .route("/x402/settle", post(settle))
}

async fn infer(
    serving: Arc<Serving>,
    local: Local,
    name: String,
    replicas: u8,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Result<Response, Failure> {
    let host = headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("localhost").to_owned();
    let payment = headers.get("payment-signature").map(|p| p.as_bytes().to_vec());
    let served = blocking(move || {
        serving.infer(&local, &name, &format!("http://{host}{uri}"), &body, replicas, payment.as_deref())
    });
    let (status, name, value, body) = match served.await? {
        Served::Done(body, paid) => (StatusCode::OK, "payment-response", paid, body),
        Served::Failed(body, paid) => (StatusCode::UNPROCESSABLE_ENTITY, "payment-response", paid, body),
        Served::PaymentRequired(body) => {
            (StatusCode::PAYMENT_REQUIRED, "payment-required", body.clone(), body)
        }
    };
    Ok((status, [(name, serving::header(&value))], Json(body)).into_response())
}

async fn status(State(local): State<Local>) -> Answer {
    Ok(Json(serde_json::to_value(local.status()?).expect("plain data")))
}

async fn params(State(local): State<Local>) -> Answer {
    Ok(Json(isobit_chain::params_to_json(&local.params()?)))
}

#[derive(serde::Deserialize)]
struct After {
    height: u64,
}

async fn wait(State(local): State<Local>, Query(after): Query<After>) -> Answer {
    let height = blocking(move || local.wait(after.height, Duration::from_secs(1))).await?;
    Ok(Json(json!({ "height": height })))
}

async fn account(State(local): State<Local>, Path(address): Path<String>) -> Answer {
    let a = local.account(parse("address", &address)?)?;
    Ok(Json(json!({
        "balance": a.balance.to_string(), "nonce": a.nonce, "stake": a.stake.map(|s| s.to_string()),
        "posted": a.posted, "base_fee": a.base_fee,
    })))
}

async fn models(State(local): State<Local>) -> Answer {
    let models = local.models()?;
    Ok(Json(models.into_iter().map(|(m, name)| json!({ "model": hex::encode(m), "name": name })).collect()))
}

async fn validators(State(local): State<Local>) -> Answer {
    let all = local.validators()?;
    Ok(Json(all.into_iter().map(|(a, weight)| json!({ "validator": a, "weight": weight })).collect()))
}

/// A job for people, and its RLP for programs.
fn job_json(job: &Job, chain_id: u64) -> Value {
    let receipts = job.receipts(chain_id);
    let seats = job.seats.iter().map(|s| {
        let receipt = receipts.iter().find(|r| r.receipt.node == s.node);
        let receipt = receipt.map(|r| serde_json::from_str::<Value>(&r.to_json()).expect("our own JSON"));
        json!({ "node": s.node, "end": format!("{:?}", s.end()).to_lowercase(), "receipt": receipt })
    });
    json!({
        "id": job.id, "phase": format!("{:?}", job.phase()).to_lowercase(), "requester": job.requester,
        "model": hex::encode(job.model), "inputs": hex::encode(job.inputs), "seed": job.seed,
        "max_fee": job.max_fee.to_string(), "fee": job.fee.to_string(),
        "outputs": job.agreed().filter(|a| a.1 == 0).map(|a| hex::encode(a.0)),
        "failure": job.agreed().map(|a| a.1).filter(|&c| c != 0),
        "seats": seats.collect::<Vec<_>>(),
        "rlp": hex::encode(alloy_rlp::encode(job)),
    })
}

async fn job(State(local): State<Local>, Path(id): Path<String>) -> Answer {
    let id: B256 = parse("job id", &id)?;
    let chain_id = local.params()?.chain_id;
    let job = blocking(move || local.job(id)).await?.ok_or_else(|| NodeError::absent("job", id))?;
    Ok(Json(job_json(&job, chain_id)))
}

async fn assigned(State(local): State<Local>, Path(address): Path<String>) -> Answer {
    let chain_id = local.params()?.chain_id;
    let jobs = local.assigned(parse("address", &address)?)?;
    Ok(Json(jobs.iter().map(|j| job_json(j, chain_id)).collect()))
}

async fn block(State(local): State<Local>, Path(height): Path<String>) -> Result<Vec<u8>, Failure> {
    let height: u64 = parse("height", &height)?;
    let block = blocking(move || Ok(local.chain.store().block(height)?)).await?;
    Ok(block.ok_or_else(|| NodeError::absent("block", height))?.encode())
}

#[derive(serde::Deserialize)]
struct Named {
    name: String,
}

async fn named(State(local): State<Local>, Query(named): Query<Named>) -> Answer {
    let model = local.model_named(&named.name)?;
    let model = model.ok_or_else(|| NodeError::absent("model", named.name))?;
    Ok(Json(json!({ "model": hex::encode(model) })))
}

#[derive(serde::Deserialize)]
struct Estimate {
    from: Address,
    to: Option<Address>,
    value: String,
    data: alloy_primitives::Bytes,
}

async fn estimate(State(local): State<Local>, body: Bytes) -> Answer {
    let e: Estimate = serde_json::from_slice(&body)
        .map_err(|e| NodeError::Malformed(format!("the body is no order: {e}")))?;
    let order = Order::new(e.to.into(), parse("amount", &e.value)?, e.data);
    let gas = blocking(move || local.estimate(e.from, &order)).await?;
    Ok(Json(json!({ "gas": gas })))
}

async fn manifest(State(local): State<Local>, Path(model): Path<String>) -> Result<Vec<u8>, Failure> {
    let model: B256 = parse("model's address", &model)?;
    let found = blocking(move || local.manifest(model)).await?;
    Ok(found.ok_or_else(|| NodeError::absent("the manifest of model", model))?)
}

async fn tensors(State(local): State<Local>, Path(root): Path<String>) -> Result<Vec<u8>, Failure> {
    let root: B256 = parse("root", &root)?;
    let tensors = blocking(move || Ok(local.chain.head().tensors(root))).await?;
    Ok(tensors.ok_or_else(|| NodeError::absent("a set of tensors on the ledger with root", root))?.to_vec())
}

async fn transact(State(local): State<Local>, body: Bytes) -> Answer {
    let hash = blocking(move || local.submit(&body)).await?;
    Ok(Json(json!({ "hash": hash })))
}

async fn sent(State(local): State<Local>, Path(hash): Path<String>) -> Answer {
    let hash: B256 = parse("transaction hash", &hash)?;
    let sent = blocking(move || local.wait_for(hash)).await?;
    Ok(Json(json!({ "height": sent.height, "succeeded": sent.succeeded })))
}

async fn get_blob(State(local): State<Local>, Path(hash): Path<String>) -> Result<Vec<u8>, Failure> {
    let hash: Hash = parse("hash", &hash)?;
    blocking(move || local.blob(&hash)).await
}

async fn put_blob(State(local): State<Local>, body: Bytes) -> Answer {
    let hash = blocking(move || local.put_blob(&body)).await?;
    Ok(Json(json!({ "hash": hash })))
}
