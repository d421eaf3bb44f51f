//! Types that tokens and requests of the server API read from JSON, where the derived
//! `Deserialize` accepts too much or too little.

mod identifier;
mod integer;
mod numeric_date;
mod object;
mod overrides;
mod string_end;

pub(crate) use identifier::Identifier;
pub(crate) use integer::Integer;
pub(crate) use numeric_date::NumericDate;
pub(crate) use object::Object;
pub(crate) use overrides::OverridesJson;
pub(crate) use string_end::end_of_string;
