//! The session against a scripted server: its bytes, token requests and events, step by step.

mod bounds;
mod calls;
mod connecting;
mod hostile;
mod properties;
mod script;
mod server_side;
mod subscribing;
mod tokens;
