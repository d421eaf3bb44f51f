//! A PostgreSQL of its own on a free port, with passwords and TLS.
//!
//! Invariant: it ends with the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use consumers::postgresql::dsn::Dsn;

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct PostgresServer {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
    settings: Vec<String>,
}

impl PostgresServer {
    /// A server with logical decoding.
    pub(crate) fn start() -> PostgresServer {
        PostgresServer::start_with(&["wal_level=logical"])
    }

    pub(crate) fn start_with(settings: &[&str]) -> PostgresServer {
        let folder = tempfile::Builder::new().prefix("tidings-postgres-").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let names = vec!["localhost".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            give(&path);
            path
        };
        give(folder.path());
        let password = file("password", PASSWORD);
        let certificate = file("server.pem", &certified.cert.pem());
        let key = file("server.key", &certified.signing_key.serialize_pem());
        let data = folder.path().join("data");
        let mut create = as_postgres("initdb");
        create.arg("-D").arg(&data).args(["-U", "postgres", "-A", "scram-sha-256", "--no-sync"]);
        create.arg("--pwfile").arg(password).stdout(Stdio::null());
        assert!(create.status().unwrap().success(), "initdb failed");
        let mut all: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
        all.extend([
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "fsync=off".to_owned(),
            "max_connections=200".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", certificate.display()),
            format!("ssl_key_file={}", key.display()),
        ]);
        let mut server = PostgresServer { folder, port, child: None, settings: all };
        server.boot();
        server
    }

    /// Stops the server at once, as a crash does, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.boot();
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let id = child.id().to_string();
            // An immediate shutdown, which also ends the server's own processes.
            let _sent = Command::new("kill").args(["-QUIT", &id]).status();
            child.wait().unwrap();
        }
    }

    fn boot(&mut self) {
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(self.folder.path().join("data"));
        command.args(["-p", &self.port.to_string()]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        while !self.psql("postgres", "select 1").status.success() {
            assert!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The address of the database `postgres` with this login.
    pub(crate) fn dsn_as(&self, user: &str, password: &str) -> Dsn {
        let PostgresServer { port, .. } = self;
        format!("host=localhost port={port} dbname=postgres user={user} password='{password}'")
            .parse()
            .unwrap()
    }

    pub(crate) fn dsn(&self) -> Dsn {
        self.dsn_as("postgres", PASSWORD)
    }

    /// An address with TLS whose certificate is verified.
    pub(crate) fn dsn_with_tls(&self) -> Dsn {
        let mut dsn = self.dsn();
        dsn.ssl_mode = consumers::postgresql::dsn::SslMode::VerifyFull;
        dsn.ssl_root_cert = Some(self.folder.path().join("server.pem"));
        dsn
    }

    /// Runs statements; returns their rows as text.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let output = self.psql("postgres", statements);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn psql(&self, database: &str, statements: &str) -> std::process::Output {
        let program = program("psql");
        Command::new(program)
            .env("PGPASSWORD", PASSWORD)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"])
            .args(["-d", database, "-v", "ON_ERROR_STOP=1", "-AtqX", "-c", statements])
            .output()
            .unwrap()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where Debian has the programs of the newest version, or the path.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin").join(name))
        .filter(|it| it.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

/// PostgreSQL refuses to run as root.
fn as_postgres(name: &str) -> Command {
    let program = program(name);
    let found = Command::new(&program).arg("--version").output();
    assert!(found.is_ok(), "{name} is missing: apt-get install postgresql");
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

fn give(path: &Path) {
    if !is_root() {
        return;
    }
    let id = |flag| {
        let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().expect("a user postgres")
    };
    chown(path, Some(id("-u")), Some(id("-g"))).unwrap();
}
