//! Opening a connection, and its login: password in plain text, MD5 or SCRAM-SHA-256.
//!
//! Invariant: with SCRAM the server proves that it knows the password too.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::dsn::{Dsn, PostgresHost};
use super::postgres_connection::{PostgresConnection, unsupported};
use super::postgres_error::PostgresError;
use super::postgres_socket;
use super::tls::{PostgresTls, TlsPlan};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionMode {
    /// Statements.
    Query,
    /// Logical replication of the database, and statements in the simple protocol.
    Replication,
}

/// Connects to the first server that accepts, and logs in.
pub(super) async fn open(
    dsn: &Dsn,
    tls: Option<&PostgresTls>,
    mode: SessionMode,
) -> Result<PostgresConnection, PostgresError> {
    let plan = TlsPlan::of(dsn, tls)?;
    let mut last = PostgresError::Protocol("no server is named");
    for host in &dsn.hosts {
        let opened = async {
            let socket = postgres_socket::connect(host, plan.as_ref()).await?;
            let mut connection = PostgresConnection::over(socket);
            log_in(&mut connection, dsn, host, mode).await?;
            Ok(connection)
        };
        match timeout(dsn.connect_timeout, opened).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = error,
            Err(_) => last = PostgresError::Silent(host.clone()),
        }
    }
    Err(last)
}

/// Logs in, and waits until the server is ready for statements.
async fn log_in(
    connection: &mut PostgresConnection,
    dsn: &Dsn,
    host: &PostgresHost,
    mode: SessionMode,
) -> Result<(), PostgresError> {
    let mut settings = vec![
        ("user", dsn.user.as_str()),
        ("database", dsn.database.as_str()),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "3"),
    ];
    if mode == SessionMode::Replication {
        settings.push(("replication", "database"));
    }
    if !dsn.session.contains_key("application_name") {
        settings.push(("application_name", "tidings"));
    }
    settings.extend(dsn.session.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    connection.send(|out| frontend::startup_message(settings, out)).await?;
    let password = dsn.password.as_bytes();
    let mut scram = None;
    loop {
        match connection.next_message().await? {
            Message::AuthenticationOk | Message::BackendKeyData(_) => {}
            Message::AuthenticationCleartextPassword => {
                connection.send(|out| frontend::password_message(password, out)).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(dsn.user.as_bytes(), password, body.salt());
                connection.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            Message::AuthenticationSasl(body) => {
                let mut mechanisms = body.mechanisms();
                let is_offered = mechanisms.any(|it| Ok(it == SCRAM_SHA_256));
                if !is_offered.map_err(unsupported)? {
                    return Err(PostgresError::Authentication(host.clone()));
                }
                let started = ScramSha256::new(password, ChannelBinding::unsupported());
                let first = |out: &mut BytesMut| {
                    frontend::sasl_initial_response(SCRAM_SHA_256, started.message(), out)
                };
                connection.send(first).await?;
                scram = Some(started);
            }
            Message::AuthenticationSaslContinue(body) => {
                let scram = scram.as_mut().ok_or(PostgresError::Protocol("SCRAM out of turn"))?;
                scram.update(body.data()).map_err(unsupported)?;
                connection.send(|out| frontend::sasl_response(scram.message(), out)).await?;
            }
            Message::AuthenticationSaslFinal(body) => {
                let scram = scram.as_mut().ok_or(PostgresError::Protocol("SCRAM out of turn"))?;
                let unproven =
                    |_| PostgresError::Protocol("it does not prove that it knows the password");
                scram.finish(body.data()).map_err(unproven)?;
            }
            Message::AuthenticationGss
            | Message::AuthenticationSspi
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential => {
                return Err(PostgresError::Authentication(host.clone()));
            }
            Message::ReadyForQuery(_) => return Ok(()),
            _ => return Err(PostgresError::Protocol("an unexpected message at login")),
        }
    }
}
