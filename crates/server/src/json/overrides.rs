//! Overrides of options of a channel for one subscription, as in claims and in the server API:
//! `{"presence": {"value": true}}`.
//!
//! Invariant: an absent or null option keeps the value of the namespace.

use engine::claims::Overrides;
use serde::Deserialize;

use super::Object;

/// Overrides of channel options, as JSON.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct OverridesJson {
    presence: Option<Object<Switch>>,
    join_leave: Option<Object<Switch>>,
    force_push_join_leave: Option<Object<Switch>>,
    force_recovery: Option<Object<Switch>>,
    force_positioning: Option<Object<Switch>>,
}

/// `{"value": true}`. An absent or null value means `false`: some encoders leave out zero values.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Switch {
    value: Option<bool>,
}

impl From<OverridesJson> for Overrides {
    fn from(json: OverridesJson) -> Overrides {
        let value = |switch: Option<Object<Switch>>| {
            switch.map(|Object(Switch { value })| value.unwrap_or_default())
        };
        Overrides {
            presence: value(json.presence),
            join_leave: value(json.join_leave),
            force_push_join_leave: value(json.force_push_join_leave),
            force_recovery: value(json.force_recovery),
            force_positioning: value(json.force_positioning),
        }
    }
}
