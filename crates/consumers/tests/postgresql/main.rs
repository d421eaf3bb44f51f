//! The consumers of PostgreSQL against a real server, which each test starts for itself.

mod capture;
mod capture_failures;
mod outbox;
mod outbox_failures;
mod postgres_server;
mod recorder;
