//! How options are declared, and the tree of all declarations.
//!
//! A section of the configuration is declared once, with [`section!`](section): each option with
//! its name, type, default and description. From that declaration follow
//! - the struct that the code reads: `options.client.ping_interval`, where a wrong path does not
//!   compile, and an option that nothing reads is a warning of the compiler;
//! - its [`Schema`], from which `table` finds keys by path, flag and variable, `check` accepts or
//!   refuses what was written, and `sample` writes the sample file and the reference.
//!
//! A field is one of
//! - an option: `port: u16 = 8000, "Port to listen on.";`. Its type implements [`OptionValue`] and
//!   its default is a TOML value. The field becomes a [`Setting`].
//! - a section: `tls: TlsSection;`. A section may be used in many places.
//! - a list of sections: `keys: Vec<ApiKeySection>;`, where the section implements [`ListItem`].
//! - the options of another section at the same place: `..options: NamespaceSection;`.
//!
//! Invariant: [`Section::read`] gets a tree that `check` has accepted, so that it cannot fail.

use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;

use super::kind::{Kind, OptionValue};
use super::mistakes::KeyedMistake;

/// The declaration of one option.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Type and range of its value.
    pub kind: Kind,
    /// Default value, as written in TOML.
    pub default: &'static str,
    /// Description for the reference and the sample file; empty if the text around describes it.
    pub doc: &'static str,
}

/// The declaration of a section.
#[derive(Debug)]
pub(crate) struct Schema {
    /// Heading of its own table in the reference. Without one, its options stand in the table of
    /// the section around it.
    pub(crate) title: Option<&'static str>,
    pub(crate) fields: &'static [Field],
}

#[derive(Debug)]
pub(crate) struct Field {
    /// Empty for [`FieldKind::Flat`].
    pub(crate) name: &'static str,
    pub(crate) kind: FieldKind,
}

/// What stands at the name of a field.
#[derive(Debug)]
pub(crate) enum FieldKind {
    Option(Key),
    Section(&'static Schema),
    List(&'static ListSchema),
    /// A section whose options stand directly in the section around it.
    Flat(&'static Schema),
}

/// The declaration of a list of sections; see [`ListItem`].
#[derive(Debug)]
pub(crate) struct ListSchema {
    pub(crate) item: &'static Schema,
    pub(crate) expected_list: &'static str,
    pub(crate) expected_item: &'static str,
    pub(crate) example: &'static str,
    pub(crate) is_strict: bool,
}

/// A section with fixed options. Implemented by [`section!`](section).
pub(crate) trait Section: Sized {
    const SCHEMA: &'static Schema;

    /// Reads the section at a path; `value` is null if nothing was written there.
    fn read(path: &str, value: &Value) -> Self;
}

/// A section that is an item of a list.
pub(crate) trait ListItem: Section {
    /// The expected form of the list, for "expected …".
    const EXPECTED_LIST: &'static str = "a list of items with a name each";
    /// The expected form of an item, for "expected …".
    const EXPECTED_ITEM: &'static str = "an item with a name and options";
    /// A comment and the lines of an example for the sample file. Empty shows all options.
    const EXAMPLE: &'static str = "";
    /// An unknown key is always a mistake, also without `--strict`.
    const IS_STRICT: bool = false;
}

/// The type of a field without a default: a section, or a list of sections.
pub(crate) trait Member: Sized {
    const KIND: FieldKind;

    fn read(path: &str, value: &Value) -> Self;
}

impl<T: Section> Member for T {
    const KIND: FieldKind = FieldKind::Section(T::SCHEMA);

    fn read(path: &str, value: &Value) -> T {
        <T as Section>::read(path, value)
    }
}

impl<T: ListItem> Member for Vec<T> {
    const KIND: FieldKind = FieldKind::List(&ListSchema {
        item: T::SCHEMA,
        expected_list: T::EXPECTED_LIST,
        expected_item: T::EXPECTED_ITEM,
        example: T::EXAMPLE,
        is_strict: T::IS_STRICT,
    });

    /// Items that were refused are null and are left out. The others keep their indexes.
    fn read(path: &str, value: &Value) -> Vec<T> {
        let items = value.as_array().into_iter().flatten().enumerate();
        let valid = items.filter(|(_, item)| !item.is_null());
        valid.map(|(index, item)| T::read(&format!("{path}[{index}]"), item)).collect()
    }
}

/// The value of an option, with the key under which it was written or would be.
pub(crate) struct Setting<T> {
    /// Path, with the indexes of lists: `channel.namespaces[0].presence`.
    pub(crate) key: String,
    value: T,
    /// Whether the option was written anywhere.
    pub(crate) is_written: bool,
    /// Whether the value is the default, written or not.
    pub(crate) is_default: bool,
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: OptionValue> Setting<T> {
    /// Reads an option of a section.
    pub(crate) fn read(path: &str, section: &Value, field: &Field) -> Setting<T> {
        let FieldKind::Option(Key { default, .. }) = field.kind else { unreachable!("an option") };
        let default: Value = serde_json::from_str(default).unwrap_or_default();
        let written = section.get(field.name).filter(|value| !value.is_null());
        let value = written.and_then(T::of).or_else(|| T::of(&default));
        Setting {
            key: join(path, field.name),
            value: value.expect("a default is a value of its type"),
            is_written: written.is_some(),
            is_default: written.is_none_or(|value| *value == default),
        }
    }
}

impl<T> Setting<T> {
    /// Replaces the value where it was not written.
    pub(crate) fn set_default(&mut self, value: T) {
        if !self.is_written {
            self.value = value;
        }
    }

    /// A mistake or a warning about this option: its key, and the text.
    pub(crate) fn fault(&self, text: impl Into<String>) -> KeyedMistake {
        (self.key.clone(), text.into())
    }

    /// The path of the section of this option.
    pub(crate) fn section(&self) -> &str {
        self.key.rsplit_once('.').map_or("", |(section, _)| section)
    }
}

impl<T: Deref<Target = str>> Setting<T> {
    /// The text, unless it is empty.
    pub(crate) fn some(&self) -> Option<String> {
        Some(String::from(&*self.value)).filter(|text| !text.is_empty())
    }

    /// A URL path without slashes at its end.
    pub(crate) fn url_path(&self) -> String {
        let trimmed = self.value.trim_end_matches('/');
        String::from(if trimmed.is_empty() { &*self.value } else { trimmed })
    }
}

impl Setting<Duration> {
    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.value.as_millis()).unwrap_or(u64::MAX)
    }
}

impl<T: Copy + Into<u64>> Setting<T> {
    pub(crate) fn number(&self) -> u64 {
        self.value.into()
    }

    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.number()).unwrap_or(usize::MAX)
    }
}

/// The path of a name below a section; the empty path is the top.
pub(crate) fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, "") => path.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}

/// The name of a field in files: `r#type` is `type`.
pub(crate) const fn name_of(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Declares a section of options, as described above.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident $(titled $title:literal)? {
            $($field:ident: $type:ty $(= $default:tt, $doc:literal)?;)*
            $(..$flat:ident: $flat_type:ty;)?
        }
    ) => {
        $(#[$meta])*
        pub(crate) struct $name {
            $(pub(crate) $field: $crate::config::schema::section!(@type $type $(, $default)?),)*
            $(pub(crate) $flat: $flat_type,)?
        }

        const _: () = {
            use $crate::config::schema;

            impl schema::Section for $name {
                const SCHEMA: &'static schema::Schema = &schema::Schema {
                    title: schema::section!(@title $($title)?),
                    fields: &[
                        $(schema::Field {
                            name: schema::name_of(stringify!($field)),
                            kind: schema::section!(@kind $type $(, $default, $doc)?),
                        },)*
                        $(schema::Field {
                            name: "",
                            kind: schema::FieldKind::Flat(
                                <$flat_type as schema::Section>::SCHEMA,
                            ),
                        },)?
                    ],
                };

                fn read(path: &str, value: &serde_json::Value) -> Self {
                    let mut fields = Self::SCHEMA.fields.iter();
                    let mut next = || fields.next().expect("a field of this section");
                    Self {
                        $($field: schema::section!(@read (path, value, next()) $type $(, $default)?),)*
                        $($flat: <$flat_type as schema::Section>::read(path, value),)?
                    }
                }
            }
        };
    };
    (@title) => { None };
    (@title $title:literal) => { Some($title) };
    (@type $type:ty) => { $type };
    (@type $type:ty, $default:tt) => { $crate::config::schema::Setting<$type> };
    (@kind $type:ty) => { <$type as schema::Member>::KIND };
    (@kind $type:ty, $default:tt, $doc:literal) => {
        schema::FieldKind::Option(schema::Key {
            kind: <$type as $crate::config::kind::OptionValue>::KIND,
            default: stringify!($default),
            doc: $doc,
        })
    };
    (@read ($path:expr, $value:expr, $field:expr) $type:ty) => {{
        let field = $field;
        <$type as schema::Member>::read(
            &schema::join($path, field.name),
            &$value[field.name],
        )
    }};
    (@read ($path:expr, $value:expr, $field:expr) $type:ty, $default:tt) => {
        schema::Setting::read($path, $value, $field)
    };
}
pub(crate) use section;
