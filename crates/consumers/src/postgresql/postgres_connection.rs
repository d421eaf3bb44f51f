//! A connection to PostgreSQL: statements, notifications, and the copy stream of replication.
//!
//! One statement at a time; its rows may be read one by one, so that the memory of a connection is
//! that of one message. Reading may be dropped at any time, sending may not.
//!
//! Invariant: no message larger than the connection's bound is kept.

use std::collections::VecDeque;
use std::fmt;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{DataRowBody, Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::postgres_error::{PostgresError, ServerError};
use super::postgres_socket::PostgresSocket;
use crate::limits::{
    POSTGRES_MESSAGE_MAX, POSTGRES_NOTIFICATIONS_MAX, POSTGRES_READ_SIZE, POSTGRES_ROWS_MAX,
};

/// A connection to PostgreSQL with one statement at a time.
pub(super) struct PostgresConnection {
    socket: Box<dyn PostgresSocket>,
    input: BytesMut,
    notifications: VecDeque<Box<str>>,
    /// A message that is longer than the bound, whose rest is read and dropped.
    overlong: Option<Overlong>,
}

/// A row of an answer.
#[derive(Clone, Debug)]
pub(super) struct PostgresRow(Vec<Option<Bytes>>);

/// What a copy stream contains.
#[derive(Debug)]
pub(super) enum CopyFrame {
    Data(Bytes),
    /// A frame longer than the bound: its length, and its first bytes.
    Overlong {
        length: usize,
        start: Bytes,
    },
}

/// What was taken from the input.
enum Taken {
    Message(Message),
    /// A message that nobody waits for.
    Passed,
    Incomplete,
}

#[derive(Debug)]
struct Overlong {
    length: usize,
    /// Bytes that are still to be dropped.
    missing: usize,
    start: Bytes,
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresConnection").finish_non_exhaustive()
    }
}

impl PostgresRow {
    /// The text of a column; `None` for null.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref().and_then(|text| std::str::from_utf8(text).ok())
    }

    pub(super) fn bytes(&self, index: usize) -> Option<&Bytes> {
        self.0.get(index)?.as_ref()
    }

    fn read(body: &DataRowBody) -> Result<PostgresRow, PostgresError> {
        let column = |range: Option<std::ops::Range<usize>>| {
            Ok(range.map(|range| body.buffer_bytes().slice(range)))
        };
        body.ranges().map(column).collect().map(PostgresRow).map_err(unsupported)
    }
}

/// What the server sends is not understood.
pub(super) fn unsupported(_error: io::Error) -> PostgresError {
    PostgresError::Protocol("a message cannot be read")
}

impl PostgresConnection {
    /// A connection over a socket, before the login.
    pub(super) fn over(socket: Box<dyn PostgresSocket>) -> PostgresConnection {
        PostgresConnection {
            socket,
            input: BytesMut::new(),
            notifications: VecDeque::new(),
            overlong: None,
        }
    }

    /// Rows of a statement in the simple protocol, which replication connections speak too.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<Vec<PostgresRow>, PostgresError> {
        self.send(|out| frontend::query(sql, out)).await?;
        self.all_rows().await
    }

    /// Rows of a statement with parameters.
    pub(super) async fn rows(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Vec<PostgresRow>, PostgresError> {
        self.begin_rows(sql, parameters).await?;
        self.all_rows().await
    }

    async fn all_rows(&mut self) -> Result<Vec<PostgresRow>, PostgresError> {
        let mut rows = Vec::new();
        while let Some(row) = self.next_row().await? {
            if rows.len() == POSTGRES_ROWS_MAX {
                return Err(PostgresError::Protocol("more rows than were asked for"));
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// Sends a statement whose rows [`PostgresConnection::next_row`] returns.
    pub(super) async fn begin_rows(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<(), PostgresError> {
        self.send(|out| {
            frontend::parse("", sql, [], out)?;
            let value = |text: &&str, out: &mut BytesMut| {
                out.extend_from_slice(text.as_bytes());
                Ok(postgres_protocol::IsNull::No)
            };
            frontend::bind("", "", [], parameters, value, [0], out)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            frontend::execute("", 0, out)?;
            frontend::sync(out);
            Ok(())
        })
        .await
    }

    /// The next row of the statement; `None` after the last one.
    pub(super) async fn next_row(&mut self) -> Result<Option<PostgresRow>, PostgresError> {
        loop {
            match self.next_message().await {
                Ok(Message::DataRow(body)) => return PostgresRow::read(&body).map(Some),
                Ok(Message::ReadyForQuery(_)) => return Ok(None),
                Ok(_) => {}
                Err(PostgresError::Server(error)) => {
                    self.finish().await?;
                    return Err(PostgresError::Server(error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads and drops what is left of an answer.
    async fn finish(&mut self) -> Result<(), PostgresError> {
        loop {
            match self.next_message().await {
                Ok(Message::ReadyForQuery(_)) => return Ok(()),
                Ok(_) | Err(PostgresError::Server(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for a notification and returns its payload.
    pub(super) async fn notification(&mut self) -> Result<Box<str>, PostgresError> {
        loop {
            match self.take_message()? {
                Some(Message::ErrorResponse(body)) => {
                    return Err(PostgresError::Server(ServerError::read(&body)));
                }
                Some(_) => continue,
                None => {}
            }
            match self.notifications.pop_front() {
                Some(payload) => return Ok(payload),
                None => self.fill().await?,
            }
        }
    }

    /// Starts a copy stream in both directions.
    pub(super) async fn begin_copy(&mut self, command: &str) -> Result<(), PostgresError> {
        self.send(|out| frontend::query(command, out)).await?;
        loop {
            // The library does not know this answer.
            if self.input.first() == Some(&COPY_BOTH_TAG)
                && let Some(header) = Header::parse(&self.input).map_err(unsupported)?
            {
                let length = length_of(header)?;
                if self.input.len() >= length {
                    self.input.advance(length);
                    return Ok(());
                }
                self.fill().await?;
                continue;
            }
            match self.take_message()? {
                Some(Message::ErrorResponse(body)) => {
                    let error = ServerError::read(&body);
                    self.finish().await?;
                    return Err(PostgresError::Server(error));
                }
                Some(_) => {}
                None => self.fill().await?,
            }
        }
    }

    /// The next frame of the copy stream. Frames longer than `max` are dropped but for their
    /// beginning. Cancel-safe.
    pub(super) async fn next_copy(&mut self, max: usize) -> Result<CopyFrame, PostgresError> {
        loop {
            if let Some(frame) = self.take_copy(max)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    fn take_copy(&mut self, max: usize) -> Result<Option<CopyFrame>, PostgresError> {
        if let Some(overlong) = &mut self.overlong {
            let dropped = overlong.missing.min(self.input.len());
            self.input.advance(dropped);
            overlong.missing -= dropped;
            if overlong.missing > 0 {
                return Ok(None);
            }
            let overlong = self.overlong.take();
            return Ok(
                overlong.map(|it| CopyFrame::Overlong { length: it.length, start: it.start })
            );
        }
        let Some(header) = Header::parse(&self.input).map_err(unsupported)? else {
            return Ok(None);
        };
        let length = length_of(header)?;
        if header.tag() != b'd' {
            return match self.take_one()? {
                Taken::Message(Message::ErrorResponse(body)) => {
                    Err(PostgresError::Server(ServerError::read(&body)))
                }
                Taken::Message(
                    Message::CopyDone | Message::CommandComplete(_) | Message::ReadyForQuery(_),
                ) => Err(PostgresError::Lost("the server has ended the stream".to_owned())),
                Taken::Message(_) | Taken::Passed => self.take_copy(max),
                Taken::Incomplete => Ok(None),
            };
        }
        if length - HEADER > max {
            if self.input.len() < HEADER + COPY_START.min(length - HEADER) {
                return Ok(None);
            }
            self.input.advance(HEADER);
            let start = self.input.split_to(COPY_START.min(length - HEADER)).freeze();
            let missing = length - HEADER - start.len();
            self.overlong = Some(Overlong { length: length - HEADER, missing, start });
            return self.take_copy(max);
        }
        if self.input.len() < length {
            self.input.reserve(length - self.input.len());
            return Ok(None);
        }
        self.input.advance(HEADER);
        Ok(Some(CopyFrame::Data(self.input.split_to(length - HEADER).freeze())))
    }

    /// Sends a frame of the copy stream.
    pub(super) async fn send_copy(&mut self, frame: Bytes) -> Result<(), PostgresError> {
        self.send(|out| {
            frontend::CopyData::new(frame)?.write(out);
            Ok(())
        })
        .await
    }

    /// Sends Terminate, so that the server does not log a lost connection.
    pub(super) async fn close(mut self) {
        let _gone = self
            .send(|out| {
                frontend::terminate(out);
                Ok(())
            })
            .await;
        let _gone = self.socket.shutdown().await;
    }

    pub(super) async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), PostgresError> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|_| PostgresError::Protocol("a text contains a zero byte"))?;
        let sent = async {
            self.socket.write_all(&out).await?;
            self.socket.flush().await
        };
        sent.await.map_err(|error| PostgresError::Lost(error.to_string()))
    }

    /// The next message. Errors of the server are errors; notices are dropped, notifications kept.
    pub(super) async fn next_message(&mut self) -> Result<Message, PostgresError> {
        loop {
            match self.take_message()? {
                Some(Message::ErrorResponse(body)) => {
                    return Err(PostgresError::Server(ServerError::read(&body)));
                }
                Some(message) => return Ok(message),
                None => self.fill().await?,
            }
        }
    }

    fn take_message(&mut self) -> Result<Option<Message>, PostgresError> {
        loop {
            match self.take_one()? {
                Taken::Message(message) => return Ok(Some(message)),
                Taken::Passed => {}
                Taken::Incomplete => return Ok(None),
            }
        }
    }

    fn take_one(&mut self) -> Result<Taken, PostgresError> {
        let Some(header) = Header::parse(&self.input).map_err(unsupported)? else {
            return Ok(Taken::Incomplete);
        };
        let length = length_of(header)?;
        if length > POSTGRES_MESSAGE_MAX {
            return Err(PostgresError::TooLarge { length, max: POSTGRES_MESSAGE_MAX });
        }
        if self.input.len() < length {
            return Ok(Taken::Incomplete);
        }
        match Message::parse(&mut self.input).map_err(unsupported)? {
            Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => Ok(Taken::Passed),
            Some(Message::NotificationResponse(body)) => {
                // A notification wakes a reader; polling replaces one that is dropped.
                if self.notifications.len() < POSTGRES_NOTIFICATIONS_MAX {
                    self.notifications.push_back(body.message().map_err(unsupported)?.into());
                }
                Ok(Taken::Passed)
            }
            Some(message) => Ok(Taken::Message(message)),
            None => Ok(Taken::Incomplete),
        }
    }

    async fn fill(&mut self) -> Result<(), PostgresError> {
        self.input.reserve(POSTGRES_READ_SIZE);
        match self.socket.read_buf(&mut self.input).await {
            Ok(0) => Err(PostgresError::Lost("the server has closed it".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(PostgresError::Lost(error.to_string())),
        }
    }
}

/// Length of a message with its header.
fn length_of(header: Header) -> Result<usize, PostgresError> {
    let length = usize::try_from(header.len());
    length.map(|length| length + 1).map_err(|_| PostgresError::Protocol("a negative length"))
}

const COPY_BOTH_TAG: u8 = b'W';
/// Kind and length of a message.
const HEADER: usize = 5;
/// Bytes kept of a frame that is too long: its head, and the kind and table of its message.
const COPY_START: usize = super::replication_frame::DATA_HEAD + 5;
