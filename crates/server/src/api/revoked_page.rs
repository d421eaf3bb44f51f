//! The method `revocations`: revocations in pages.
//!
//! Invariant: pages read with the cursors of their predecessors contain each revocation once that
//! was in force from the first page to the last.

use std::sync::Arc;

use engine::revocation::{Revocation, RevocationState, Subject};
use serde::Serialize;

use super::ApiState;
use super::call::Call;
use super::methods::{Outcome, json};
use super::request::{RevocationsRequest, read};
use crate::limits::{REVOCATIONS_PER_PAGE, REVOCATIONS_PER_PAGE_MAX};
use crate::service::error::ApiError;

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
    pub(super) fn revocations(&self, call: &Call, params: &[u8]) -> Outcome {
        let RevocationsRequest { limit, cursor } = read(params)?;
        let limit = match usize::try_from(limit) {
            Ok(0) => REVOCATIONS_PER_PAGE,
            Ok(limit) => limit.min(REVOCATIONS_PER_PAGE_MAX),
            Err(_) => return Err(ApiError::bad("limit is negative").into()),
        };
        let after = match &*cursor {
            "" => None,
            text => Some(subject(text).ok_or_else(|| {
                ApiError::bad(
                    "cursor is none that this method has answered with: leave it out to begin",
                )
            })?),
        };
        let (found, has_more) = self.service.revocations.page(after.as_ref(), limit);
        let cursor = found.last().filter(|_| has_more).map(|last| text(&last.subject));
        let page = json(&Page { revocations: found.iter().map(entry).collect(), cursor })?;
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

/// A subject as a cursor.
fn text(subject: &Subject) -> String {
    match subject {
        Subject::User(user) => format!("user:{user}"),
        Subject::Token(id) => format!("token:{id}"),
        Subject::IssuedTo(user) => format!("issued:{user}"),
        Subject::IssuedToAll => "all:".to_owned(),
    }
}

fn subject(cursor: &str) -> Option<Subject> {
    match cursor.split_once(':')? {
        ("user", user) => Some(Subject::User(user.into())),
        ("token", id) => Some(Subject::Token(id.into())),
        ("issued", user) => Some(Subject::IssuedTo(user.into())),
        ("all", "") => Some(Subject::IssuedToAll),
        _ => None,
    }
}
