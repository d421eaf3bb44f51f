//! Runs the product's scripts in a real Lua 5.1, with `redis.call` over the model's keys.
//!
//! Invariant: values convert between Lua and Redis as in Redis: null is false, a status is a table,
//! a number becomes an integer, and an error ends the script.

use std::cell::RefCell;
use std::collections::HashMap;

use mlua::{Function, Lua, Table, Value, Variadic};

use super::reply::Reply;
use super::store::{Store, Writes};

/// An interpreter; all servers of a world share it, since scripts keep no state.
pub(in crate::redis::tests) struct Interpreter {
    lua: Lua,
    redis: Table,
    compiled: RefCell<HashMap<String, Function>>,
}

impl Interpreter {
    pub(in crate::redis::tests) fn new() -> Interpreter {
        let lua = Lua::new();
        let redis = lua.create_table().expect("a table");
        let json = lua.create_table().expect("a table");
        let encode = lua.create_function(|lua, text: mlua::String| {
            lua.create_string(json_text(&text.as_bytes()))
        });
        json.set("encode", encode.expect("a function")).expect("a field");
        lua.globals().set("redis", &redis).expect("a global");
        lua.load(RAISE).exec().expect("a script");
        lua.globals().set("cjson", json).expect("a global");
        Interpreter { lua, redis, compiled: RefCell::default() }
    }

    /// Runs a script with keys and arguments.
    pub(in crate::redis::tests) fn run(
        &self,
        store: &mut Store,
        text: &str,
        keys: &[Vec<u8>],
        arguments: &[Vec<u8>],
    ) -> Reply {
        let mut error = None;
        let is_out_of_memory = store.writes == Writes::OutOfMemory;
        let mut has_written = false;
        let result = self.lua.scope(|scope| {
            let call = scope.create_function_mut(|lua: &Lua, words: Variadic<Value>| {
                let words: Vec<Vec<u8>> = words.iter().map(word).collect();
                let name = String::from_utf8_lossy(&words[0]).to_uppercase();
                let kind = Store::write_kind(&name);
                // A script that has written may go on.
                let before = store.writes;
                if is_out_of_memory && has_written {
                    store.writes = Writes::Accepted;
                }
                let reply = store.execute(&words);
                store.writes = before;
                if let Reply::Error(text) = &reply {
                    error = Some(text.clone());
                }
                has_written |= kind.is_some();
                to_lua(lua, &reply)
            })?;
            self.redis.set("execute", call)?;
            self.lua.globals().set("KEYS", self.texts(keys)?)?;
            self.lua.globals().set("ARGV", self.texts(arguments)?)?;
            self.function(text)?.call::<Value>(())
        });
        match (result, error) {
            (Ok(value), _) => from_lua(&value),
            (_, Some(text)) => Reply::Error(format!("{text} script: 0000, on @user_script:1.")),
            (Err(error), None) => panic!("the script failed: {error}\n{text}"),
        }
    }

    fn function(&self, text: &str) -> mlua::Result<Function> {
        if let Some(function) = self.compiled.borrow().get(text) {
            return Ok(function.clone());
        }
        let function = self.lua.load(text).into_function()?;
        self.compiled.borrow_mut().insert(text.to_owned(), function.clone());
        Ok(function)
    }

    fn texts(&self, texts: &[Vec<u8>]) -> mlua::Result<Table> {
        let texts: Vec<mlua::String> =
            texts.iter().map(|text| self.lua.create_string(text)).collect::<mlua::Result<_>>()?;
        self.lua.create_sequence_from(texts)
    }
}

/// `redis.call` raises an error as a table, as Redis 7 does.
const RAISE: &str = "
    function redis.call(...)
        local reply = redis.execute(...)
        if type(reply) == 'table' and reply.err then error(reply, 0) end
        return reply
    end";

/// An argument of `redis.call`.
fn word(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Integer(number) => number.to_string().into_bytes(),
        Value::Number(number) => number.to_string().into_bytes(),
        other => panic!("redis.call with {other:?}"),
    }
}

fn to_lua(lua: &Lua, reply: &Reply) -> mlua::Result<Value> {
    Ok(match reply {
        Reply::Integer(number) => Value::Number(*number as f64),
        Reply::Bulk(text) => Value::String(lua.create_string(text)?),
        Reply::Null => Value::Boolean(false),
        Reply::Status(text) => {
            let table = lua.create_table()?;
            table.set("ok", *text)?;
            Value::Table(table)
        }
        Reply::List(items) | Reply::Set(items) | Reply::Push(items) => {
            let items: Vec<Value> =
                items.iter().map(|item| to_lua(lua, item)).collect::<mlua::Result<_>>()?;
            Value::Table(lua.create_sequence_from(items)?)
        }
        Reply::Error(text) => {
            let table = lua.create_table()?;
            table.set("err", &**text)?;
            Value::Table(table)
        }
    })
}

fn from_lua(value: &Value) -> Reply {
    match value {
        Value::Nil | Value::Boolean(false) => Reply::Null,
        Value::Boolean(true) => Reply::Integer(1),
        Value::Integer(number) => Reply::Integer(*number),
        Value::Number(number) => Reply::Integer(*number as i64),
        Value::String(text) => Reply::Bulk(text.as_bytes().to_vec()),
        Value::Table(table) => {
            if let Ok(Some(text)) = table.raw_get::<Option<String>>("err") {
                return Reply::Error(text);
            }
            let mut items = Vec::new();
            for index in 1.. {
                match table.raw_get::<Value>(index).expect("a table") {
                    Value::Nil => break,
                    item => items.push(from_lua(&item)),
                }
            }
            Reply::List(items)
        }
        other => panic!("a script returned {other:?}"),
    }
}

/// A text as Redis' cjson encodes it.
fn json_text(text: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for byte in text {
        match byte {
            b'"' | b'\\' | b'/' => out.extend([b'\\', *byte]),
            8 => out.extend(b"\\b"),
            9 => out.extend(b"\\t"),
            10 => out.extend(b"\\n"),
            12 => out.extend(b"\\f"),
            13 => out.extend(b"\\r"),
            0..=31 | 127 => out.extend(format!("\\u{byte:04x}").bytes()),
            byte => out.push(*byte),
        }
    }
    out.push(b'"');
    out
}
