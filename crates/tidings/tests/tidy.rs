//! Rules of this repository that neither compiler nor linter knows, checked over all of its files.
//!
//! Invariant: each test names every place that breaks its rule, as `file:line`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{FnArg, Item, Signature, Type, UseTree, Visibility};

/// Columns of a line of prose.
const WIDTH: usize = 100;
/// Lines of a source file.
const FILE_LINES_MAX: usize = 600;
/// Parameters of a function, its receiver included. A tuple counts as its elements.
const PARAMETERS_MAX: usize = 5;
/// Functions whose boolean is a value of the protocol that they write or read, not a choice.
const PROTOCOL_FLAGS: [&str; 4] = ["flag", "flag_if", "lifetime", "ttl"];
/// Functions with more parameters, until their tuples are structs.
const TUPLES_LEFT: [&str; 8] = [
    "channel_stream/publish.rs begin",
    "redis/command.rs presence",
    "redis/core.rs handle_answer",
    "redis/core/requests.rs announce_leave",
    "redis/core/requests.rs note",
    "redis/link.rs publish",
    "redis/link.rs update_subscriptions",
    "redis/links.rs handle_observation",
];
/// Crates whose files import each other without circles.
const WITHOUT_CIRCLES: [&str; 9] =
    ["bench", "brokers", "client", "consumers", "events", "proxy", "server", "tidings", "wire"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Files below the root with one of these extensions, as paths from the root.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let (path, name) = (entry.path(), entry.file_name());
            let is_ours =
                !["target", "node_modules", ".git", "corpus"].iter().any(|no| name == *no);
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() && is_ours => walk(&path, found),
                kind if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.retain(|path| path.extension().is_some_and(|one| extensions.iter().any(|e| one == *e)));
    found.sort();
    found
}

/// Sources of the crates, without tests, benches and examples.
fn sources() -> Vec<Source> {
    let is_product = |path: &PathBuf| {
        let names: Vec<_> =
            path.strip_prefix(root().join("crates")).into_iter().flatten().collect();
        names.get(1).is_some_and(|name| *name == "src")
            && !names.iter().any(|name| *name == "tests" || *name == "tests.rs")
    };
    files(&["rs"]).into_iter().filter(is_product).map(Source::read).collect()
}

/// A parsed file.
struct Source {
    path: PathBuf,
    /// The crate and the modules on the way to the file.
    module: Vec<String>,
    file: syn::File,
}

impl Source {
    fn read(path: PathBuf) -> Source {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let mut file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        file.items.retain(|item| !is_test(item));
        let relative =
            path.strip_prefix(root().join("crates")).expect("a source").with_extension("");
        let names = relative.iter().map(|name| name.to_string_lossy().into_owned());
        let is_module = |name: &String| !["src", "lib", "main"].contains(&name.as_str());
        Source { module: names.filter(is_module).collect(), path, file }
    }

    fn at(&self, span: proc_macro2::Span) -> String {
        let path = self.path.strip_prefix(root()).expect("a source");
        format!("{}:{}", path.display(), span.start().line)
    }
}

fn is_test(item: &Item) -> bool {
    let Item::Mod(module) = item else { return false };
    let is_for_tests = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
    };
    module.attrs.iter().any(is_for_tests)
}

fn assert_none(rule: &str, places: &[String]) {
    assert!(places.is_empty(), "{rule}:\n{}\n{} places", places.join("\n"), places.len());
}

#[test]
fn prose_is_at_most_100_columns_wide() {
    let mut wide = Vec::new();
    for path in files(&["rs", "md", "js", "py", "proto", "yaml", "yml", "toml", "sh"]) {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let relative = path.strip_prefix(root()).expect("below the root").display().to_string();
        let mut is_code = false;
        for (index, line) in text.lines().enumerate() {
            let start = line.trim_start();
            let is_markdown = relative.ends_with(".md");
            is_code ^= is_markdown && start.starts_with("```");
            let is_comment = ["//", "# ", "* ", "/*"].iter().any(|sign| start.starts_with(sign));
            let is_table = start.trim_start_matches(['/', '!', ' ']).starts_with('|');
            let is_prose = !is_table && if is_markdown { !is_code } else { is_comment };
            // An address cannot be broken.
            if is_prose && line.chars().count() > WIDTH && !line.contains("://") {
                wide.push(format!("{relative}:{}", index + 1));
            }
        }
    }
    assert_none("lines of prose wider than 100 columns", &wide);
}

#[test]
fn source_files_say_what_they_are_and_are_short() {
    let mut places = Vec::new();
    for path in files(&["rs"]) {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let relative = path.strip_prefix(root()).expect("below the root").display().to_string();
        if !text.starts_with("//!") && !text.starts_with("#!") {
            places.push(format!("{relative}:1 does not begin with //!"));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            places.push(format!("{relative}:{lines} is longer than {FILE_LINES_MAX} lines"));
        }
    }
    assert_none("heads and lengths of files", &places);
}

#[test]
fn a_public_type_name_is_used_once() {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for item in &source.file.items {
            let (visibility, name) = match item {
                Item::Struct(item) => (&item.vis, &item.ident),
                Item::Enum(item) => (&item.vis, &item.ident),
                Item::Trait(item) => (&item.vis, &item.ident),
                Item::Type(item) => (&item.vis, &item.ident),
                Item::Union(item) => (&item.vis, &item.ident),
                _ => continue,
            };
            if !matches!(visibility, Visibility::Inherited) {
                names.entry(name.to_string()).or_default().push(source.at(name.span()));
            }
        }
    }
    names.retain(|_, places| places.len() > 1);
    let doubles = names.iter().map(|(name, places)| format!("{name}: {}", places.join(", ")));
    assert_none("type names that are public more than once", &doubles.collect::<Vec<_>>());
}

/// The types that a parameter consists of: those of its elements, if it is a tuple.
fn elements(parameter: &Type) -> Vec<Option<&Type>> {
    match parameter {
        Type::Tuple(tuple) => tuple.elems.iter().flat_map(elements).collect(),
        Type::Reference(reference) => elements(&reference.elem),
        Type::Paren(inner) => elements(&inner.elem),
        other => vec![Some(other)],
    }
}

#[test]
fn functions_have_few_parameters_and_none_is_a_boolean() {
    struct Parameters<'a> {
        source: &'a Source,
        /// Signatures of a trait of another crate are not ours.
        is_foreign: bool,
        places: Vec<String>,
    }
    impl<'ast> Visit<'ast> for Parameters<'_> {
        fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
            let before = std::mem::replace(&mut self.is_foreign, item.trait_.is_some());
            visit::visit_item_impl(self, item);
            self.is_foreign = before;
        }

        fn visit_signature(&mut self, signature: &'ast Signature) {
            visit::visit_signature(self, signature);
            if self.is_foreign {
                return;
            }
            let at = self.source.at(signature.ident.span());
            let parameters = signature.inputs.iter().flat_map(|input| match input {
                FnArg::Typed(typed) => elements(&typed.ty),
                // Counted, and of no type that matters.
                FnArg::Receiver(_) => vec![None],
            });
            let parameters: Vec<_> = parameters.collect();
            let is_flag = |found: &Option<&Type>| matches!(found, Some(Type::Path(path)) if path.path.is_ident("bool"));
            let is_of_protocol = PROTOCOL_FLAGS.iter().any(|name| signature.ident == name);
            if !is_of_protocol && parameters.iter().any(is_flag) {
                self.places.push(format!("{at} {} has a boolean parameter", signature.ident));
            }
            let place = format!("{} {}", self.source.path.display(), signature.ident);
            if TUPLES_LEFT.iter().any(|left| place.ends_with(left)) {
                return;
            }
            if parameters.len() > PARAMETERS_MAX {
                let count = parameters.len();
                self.places.push(format!("{at} {} has {count} parameters", signature.ident));
            }
        }
    }
    let mut places = Vec::new();
    for source in sources() {
        let mut parameters = Parameters { source: &source, is_foreign: false, places: Vec::new() };
        parameters.visit_file(&source.file);
        places.extend(parameters.places);
    }
    assert_none("parameters of functions", &places);
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let sources = sources();
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| &source.module[..]).collect();
    let mut imports: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for source in &sources {
        let mut paths = Paths { module: &source.module, found: BTreeSet::new() };
        paths.visit_file(&source.file);
        // The file that a path leads into is the longest module that it begins with.
        let target = |path: &Vec<String>| {
            let lengths = (1..=path.len()).rev();
            lengths.map(|length| &path[..length]).find_map(|head| modules.get(head).copied())
        };
        let found = paths.found.iter().filter_map(target);
        let is_relative = |other: &&[String]| {
            other.starts_with(&source.module) || source.module.starts_with(other)
        };
        imports.insert(&source.module, found.filter(|other| !is_relative(other)).collect());
    }
    // What nothing outside the rest imports from, or what imports nothing of it, is in no circle.
    loop {
        let before = imports.len();
        let targets: BTreeSet<_> = imports.values().flatten().copied().collect();
        imports.retain(|module, others| !others.is_empty() && targets.contains(module));
        let rest: BTreeSet<_> = imports.keys().copied().collect();
        imports.values_mut().for_each(|others| others.retain(|other| rest.contains(other)));
        if imports.len() == before {
            break;
        }
    }
    let name = |module: &[String]| module.join("::");
    imports.retain(|module, _| WITHOUT_CIRCLES.contains(&module[0].as_str()));
    let circles = imports.iter().map(|(module, others)| {
        let others: Vec<_> = others.iter().map(|other| name(other)).collect();
        format!("{} imports {}", name(module), others.join(", "))
    });
    assert_none("files in or between circles of imports", &circles.collect::<Vec<_>>());
}

/// Absolute paths of everything that a file of a crate names in its own crate.
struct Paths<'a> {
    module: &'a [String],
    found: BTreeSet<Vec<String>>,
}

impl Paths<'_> {
    fn add(&mut self, path: &[String]) {
        let mut absolute = match path.first().map(String::as_str) {
            Some("crate") => self.module[..1].to_vec(),
            Some("self" | "super") => self.module.to_vec(),
            _ => return,
        };
        let rest = path.iter().skip(usize::from(path[0] != "super"));
        for name in rest {
            if name == "super" {
                absolute.pop();
            } else {
                absolute.push(name.clone());
            }
        }
        self.found.insert(absolute);
    }

    fn add_tree(&mut self, head: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [head, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.add(&with(&name.ident)),
            UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            UseTree::Glob(_) => self.add(head),
            UseTree::Group(group) => group.items.iter().for_each(|one| self.add_tree(head, one)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        visit::visit_path(self, path);
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&names);
    }
}
