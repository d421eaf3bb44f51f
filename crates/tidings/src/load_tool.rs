//! `tidings bench`: runs the load tool and prints its report.

use std::process::ExitCode;

use server::token::{ConnectionTokenRequest, TokenRequest, sign_connection};

use crate::misuse::duration_ms;
use crate::output::{print, print_error};
use crate::token::now_unix;

/// Seconds for which a token of a client is valid: the longest run.
const TOKEN_SECONDS: u32 = 86_400;

pub(crate) fn run(options: &bench::Options) -> anyhow::Result<ExitCode> {
    let outcome = bench::run(options, |text| duration_ms("--duration", text))?;
    print(&outcome.text)?;
    outcome.messages.iter().for_each(|message| print_error(message));
    Ok(if outcome.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn run_process(kind: bench::ProcessKind) -> anyhow::Result<ExitCode> {
    bench::run_process(kind, sign)?;
    Ok(ExitCode::SUCCESS)
}

/// A connection token for a user.
fn sign(secret: &str, user: &str) -> Result<String, String> {
    let user = user.to_owned();
    let token = TokenRequest { user, expires_in: Some(TOKEN_SECONDS), ..TokenRequest::default() };
    let request = ConnectionTokenRequest { token, channels: Vec::new() };
    sign_connection(secret, &request, now_unix()).map_err(|error| error.to_string())
}
