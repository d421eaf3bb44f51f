//! A node: a process of its own, on an address that it keeps over restarts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::api::Api;
use crate::process::{Running, configured, tidings};
use crate::server::wait_until;

/// See the module.
pub(crate) struct Node {
    running: Running,
    _folder: TempDir,
    number: usize,
    file: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) api: Api,
}

impl Node {
    /// With this part of the configuration, which says where the broker is.
    pub(crate) fn start(number: usize, broker: &str) -> Node {
        let (folder, file) = configured(&format!("{CONFIG}\n{broker}"));
        // Of its own, so that no outgoing connection can have taken the port when it comes back.
        let host = format!("127.0.3.{}", number + 1);
        let (running, port) = Running::serving(serve(&file, number, &format!("{host}:0")));
        let address = format!("{host}:{port}").parse().unwrap();
        let api = Api::new(address);
        let mut node = Node { running, _folder: folder, number, file, address, api };
        node.wait_ready();
        node
    }

    pub(crate) fn wait_ready(&mut self) {
        wait_until("the node is ready", || self.api.is_ready());
    }

    /// Waits until it is not ready, for this reason.
    pub(crate) fn wait_unready(&mut self, reason: &str) {
        wait_until("the node is not ready", || {
            self.api.unready().is_some_and(|why| why.contains(reason))
        });
    }

    pub(crate) fn kill(&mut self) {
        self.running.signal("-KILL");
        self.running.exit();
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        self.api.handle_disconnect();
        self.running.signal("-TERM");
        let status = self.running.exit();
        let words = self.running.last_words();
        assert_eq!(status.code(), Some(0), "{words}");
        // Neither the node nor one of its scripts in Redis.
        for mistake in ["panicked", "user_script"] {
            assert!(!words.contains(mistake), "{words}");
        }
    }

    /// Serves again, once it has ended.
    pub(crate) fn restart(&mut self) {
        let command = serve(&self.file, self.number, &self.address.to_string());
        (self.running, _) = Running::serving(command);
        self.wait_ready();
    }
}

fn serve(file: &Path, number: usize, address: &str) -> Command {
    let (host, port) = address.split_once(':').unwrap();
    tidings(&[
        "serve",
        "-c",
        file.to_str().unwrap(),
        &format!("--http_server.address={host}"),
        &format!("--http_server.port={port}"),
        &format!("--node.name=chaos-{number}"),
    ])
}

const CONFIG: &str = r#"
[http_api]
key = "key"
[client]
allow_anonymous_connect_without_token = true
recovery_max_publication_limit = 1000
[shutdown]
drain_window = "1s"
[[channel.namespaces]]
name = "chaos"
presence = true
history_size = 1000
history_ttl = "10m"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;
