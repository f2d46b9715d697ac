//! What OpenGradient's SDK asks beside the chain.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isobit_chain::abi::IOpenGradient::ModelOutput;
use serde_json::{Value, json};

use crate::Local;

/// The output of an inference by the id in its event, in the envelope that the SDK takes off.
pub(crate) async fn inference(State(local): State<Local>, Path(id): Path<String>) -> Response {
    let found = tokio::task::spawn_blocking(move || local.chain.inference(&id)).await;
    match found {
        Ok(Some(output)) => {
            let result =
                json!({ "InferenceResult": { "VanillaResult": { "model_output": model_output(&output) } } });
            Json(json!({ "inference_results": [STANDARD.encode(result.to_string())] })).into_response()
        }
        _ => {
            let why = "this inference is not known here, or its outputs are not on the ledger";
            (StatusCode::NOT_FOUND, Json(json!({ "error": why }))).into_response()
        }
    }
}

fn model_output(output: &ModelOutput) -> Value {
    let numbers = output.numbers.iter().map(|t| {
        let values = t
            .values
            .iter()
            .map(|n| json!({ "value": n.value.to_string(), "decimals": n.decimals.to_string() }));
        json!({ "name": t.name, "values": values.collect::<Vec<_>>(), "shape": t.shape })
    });
    let strings = output.strings.iter().map(|t| json!({ "name": t.name, "values": t.values }));
    let jsons = output.jsons.iter().map(|t| json!({ "name": t.name, "value": t.value }));
    json!({
        "numbers": numbers.collect::<Vec<_>>(),
        "strings": strings.collect::<Vec<_>>(),
        "jsons": jsons.collect::<Vec<_>>(),
    })
}
