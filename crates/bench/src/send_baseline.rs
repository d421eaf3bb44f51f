//! The limit that everything is compared with: a process that only sends, one blocking `send` for
//! each receiver and message, the same bytes that a server would send. No session, no protocol, no
//! poller.
//!
//! Invariant: between two sends there is nothing but the loop.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use wire::protocol::{self, Codec, Publication, Push, PushEvent, Reply, ReplyBody};
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::handshake::{self, RequestHead};

use super::clock;
use super::plan::{GeneratorCommand, ProcessEvent, SendBaselinePlan};
use super::process_pipe;
use super::publication_tag::PublicationTag;
use super::run_totals::RunTotals;

/// Runs such a process.
pub(crate) fn run() -> anyhow::Result<()> {
    let plan: SendBaselinePlan = process_pipe::receive()?.context("there is no plan")?;
    if let Some(core) = plan.core {
        let mut cores = CpuSet::new();
        cores.set(core as usize);
        sched_setaffinity(None, &cores).with_context(|| format!("there is no core {core}"))?;
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    process_pipe::send(&ProcessEvent::Listening(listener.local_addr()?));
    let mut receivers = Vec::new();
    for _ in 0..plan.receivers {
        receivers.push(accept(&listener)?);
    }
    process_pipe::send(&ProcessEvent::Ready);
    let Some(GeneratorCommand::Go(begin)) = process_pipe::receive()? else { return Ok(()) };
    let (number, fault) = send(&plan, begin, &mut receivers);
    if let Some(fault) = fault {
        process_pipe::send(&ProcessEvent::Failed(fault));
    }
    process_pipe::send(&ProcessEvent::Published(vec![(0, number)]));
    process_pipe::send(&ProcessEvent::Result(Box::new(RunTotals {
        published: number,
        ..RunTotals::default()
    })));
    // The sockets stay open until the receivers have everything.
    while process_pipe::receive::<GeneratorCommand>()?.is_some() {}
    Ok(())
}

/// The loop; gives how many messages went out, and what broke.
fn send(plan: &SendBaselinePlan, begin: u64, receivers: &mut [TcpStream]) -> (u64, Option<String>) {
    let end = begin + plan.duration_ms * 1_000_000;
    for number in 0.. {
        let mut now = clock::now();
        let planned = match plan.rate {
            0.0 => now.max(begin),
            rate => begin + (number as f64 * 1e9 / rate) as u64,
        };
        if planned >= end {
            return (number, None);
        }
        while now < planned {
            std::thread::sleep(Duration::from_nanos(planned - now));
            now = clock::now();
        }
        let frame = frame(plan, PublicationTag { stream: 0, number, planned });
        for receiver in &mut *receivers {
            if let Err(error) = receiver.write_all(&frame) {
                return (number, Some(format!("a receiver is gone: {error}")));
            }
        }
    }
    unreachable!("the numbers do not end")
}

/// What a server sends for a publication.
fn frame(plan: &SendBaselinePlan, tag: PublicationTag) -> bytes::Bytes {
    let mut data = Vec::new();
    tag.write(plan.size, &mut data);
    // As long as what the server sends: it says when it took the publication.
    let time = 1_700_000_000_000;
    let publication = Publication { data: data.into(), time, ..Publication::default() };
    let event = PushEvent::Publication(publication.into());
    let push = Push { channel: format!("{}-0", plan.channel).into(), event };
    let mut payload = Vec::new();
    let reply = Reply { id: 0, body: ReplyBody::Push(push) };
    protocol::encode_reply(plan.encoding.codec(), &reply, &mut payload);
    let is_text = plan.encoding.codec() == Codec::Json;
    encoder::frame(if is_text { FrameKind::Text } else { FrameKind::Binary }, &payload)
}

fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    loop {
        let mut part = [0; 2048];
        let count = stream.read(&mut part)?;
        if count == 0 {
            bail!("a receiver is gone");
        }
        head.extend_from_slice(&part[..count]);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(&head)?.is_partial() {
            continue;
        }
        let names: Vec<String> =
            request.headers.iter().map(|header| header.name.to_lowercase()).collect();
        let values = request.headers.iter().map(|header| header.value);
        let headers = names.iter().map(String::as_str).zip(values).collect();
        let head = RequestHead { method: "GET", is_http_1_1: true, headers };
        let accept = handshake::accept(&head)?.accept;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes())?;
        return Ok(stream);
    }
}
