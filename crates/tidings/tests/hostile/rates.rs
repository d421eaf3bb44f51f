//! Floods under the rates that hold by default, and under the ceilings of the memory engine.

use std::time::{Duration, Instant};

use wire::websocket::encoder::FrameKind;

use crate::case::Case;
use crate::floods::{closed_by, commands};
use crate::peer::{Peer, frame};
use crate::server::sum;

/// Time of a flood of what is kept.
const TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 6 });

/// What one connection may make the server keep in that time: 2 MiB/s and 8 MiB at once, and as
/// much again for what the allocator and its own answers take.
const KEPT_KB_MAX: u64 = 2 * (8 + 2 * 6) * 1024;

fn refused(case: &Case, bucket: &str) -> u64 {
    sum(&case.server.metrics(), &format!("tidings_limited_total{{bucket=\"connection.{bucket}\"}}"))
}

/// Floods until it is closed for it.
fn flood(name: &'static str, bytes: &[u8], bucket: &str) {
    let case = Case::limited(name, &[]);
    let mut peer = Peer::dial_narrow(case.server.address).admit();
    let (began, used) = (Instant::now(), case.server.processor_time());
    let is_closed = || closed_by(&case, &[3013]).is_some();
    let sent = peer.flood(bytes, Duration::from_secs(1)..Duration::from_secs(15), is_closed);
    let (took, used) = (began.elapsed(), case.server.processor_time() - used);
    let (is_closed, refused) = (is_closed(), refused(&case, bucket));
    drop(peer);
    case.finish(format!(
        "{sent} bytes in {took:.1?}, {refused} refused, {used:.1?} of processor time"
    ));
    assert!(is_closed, "{name} does not end with 3013");
    assert!(refused > 0, "{name} is not refused by {bucket}");
}

#[test]
fn of_commands() {
    let bytes = commands(10, |_| r#"{"id":1,"presence_stats":{"channel":"open:x"}}"#.to_owned());
    flood("a limited flood of commands", &bytes, "commands");
}

#[test]
fn of_publications() {
    let bytes = commands(10, |_| r#"{"id":1,"publish":{"channel":"open:x","data":1}}"#.to_owned());
    flood("a limited flood of publications", &bytes, "publishes");
}

#[test]
fn of_channels_made_up() {
    let bytes =
        commands(10, |n| format!(r#"{{"id":1,"publish":{{"channel":"open:{n}","data":1}}}}"#));
    flood("a limited flood of new channels", &bytes, "new_channels");
}

/// Publishes large payloads into ever new channels; gives how much the server has grown.
fn keep_without_end(case: &Case) -> u64 {
    let mut peer = Peer::admitted(case.server.address);
    let data = "x".repeat(65_000);
    let bytes: Vec<u8> = (0..1_000)
        .flat_map(|n| {
            let command =
                format!(r#"{{"id":1,"publish":{{"channel":"kept:{n}","data":"{data}"}}}}"#);
            frame(FrameKind::Text, command.as_bytes())
        })
        .collect();
    // A client that is closed for it reconnects.
    let began = Instant::now();
    while began.elapsed() < TIME {
        peer.flood(&bytes, TIME / 4..TIME / 4, || false);
        peer = Peer::admitted(case.server.address);
    }
    case.growth_kb()
}

#[test]
fn of_what_is_kept() {
    let mut case = Case::limited("a limited flood of what is kept", &[]);
    case.begin_again(4 * KEPT_KB_MAX);
    let growth = keep_without_end(&case);
    let refused = refused(&case, "bytes");
    case.finish(format!("{refused} refused"));
    // Each time that it comes again it has full buckets.
    assert!(growth <= 4 * KEPT_KB_MAX, "grew by {growth} kB");
    assert!(refused > 0);
}

#[test]
fn of_what_is_kept_without_rates() {
    const CEILING: u64 = 48 << 20;
    let settings = [("engine.memory.bytes_max", &*CEILING.to_string())];
    let mut case = Case::busy("a flood of what is kept, with a ceiling", &settings);
    case.begin_again(4 * CEILING / 1024);
    let growth = keep_without_end(&case);
    let page = case.server.metrics();
    let (kept, refused) = (
        sum(&page, "tidings_memory_engine_bytes"),
        sum(&page, "tidings_memory_engine_refused_total"),
    );
    case.finish(format!("{} MB kept, {refused} refused", kept >> 20));
    assert!(kept <= CEILING && refused > 0, "{kept} bytes kept, {refused} refused");
    assert!(growth <= 2 * CEILING / 1024, "grew by {growth} kB");
}
