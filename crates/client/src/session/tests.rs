//! The session against a server played by hand: what it sends, asks and tells, step by step.

mod calls;
mod connecting;
mod hostile;
mod properties;
mod script;
mod server_side;
mod subscribing;
mod tokens;
