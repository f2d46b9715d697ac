//! The graph IR, opset upgrade, function inlining, canonical form, the model object.
