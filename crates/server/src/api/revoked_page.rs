//! The method `revocations`: revocations in pages.

use std::sync::Arc;

use engine::revocation::{Revocation, RevocationState, Subject};
use serde::Serialize;

use super::ApiState;
use super::methods::{Outcome, json};
use super::request::{RevocationsRequest, read};
use crate::service::call::ApiCall;

#[derive(Serialize)]
struct Page<'a> {
    revocations: Vec<Entry<'a>>,
    /// Start of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// A revocation in the form in which `revoke` and `unrevoke` take it.
#[derive(Default, Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    all_users: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before: Option<i64>,
    expire_at: i64,
}

impl ApiState {
    pub(super) fn revocations(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let RevocationsRequest { limit, cursor } = read(params)?;
        let page = self.service.revocations.page(limit, &cursor)?;
        let revocations = page.revocations.iter().map(entry).collect();
        let page = json(&Page { revocations, cursor: page.cursor })?;
        call.check_room(page.len())?;
        Ok(page)
    }
}

fn entry(revocation: &Arc<Revocation>) -> Entry<'_> {
    let expire_at = revocation.ends_at;
    let issued_before = match revocation.state {
        RevocationState::Revoked { issued_before } => Some(issued_before),
        RevocationState::Lifted => None,
    };
    match &revocation.subject {
        Subject::User(user) => Entry { user: Some(user), expire_at, ..Entry::default() },
        Subject::Token(id) => Entry { token_id: Some(id), expire_at, ..Entry::default() },
        Subject::IssuedTo(user) => {
            Entry { user: Some(user), issued_before, expire_at, ..Entry::default() }
        }
        Subject::IssuedToAll => {
            Entry { all_users: Some(true), issued_before, expire_at, ..Entry::default() }
        }
    }
}
