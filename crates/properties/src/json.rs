//! Unambiguous JSON: text that serde_json accepts and in which no object repeats a key.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Returns the value of such a text.
pub fn parse(text: &[u8]) -> Option<Value> {
    let plain: Option<Plain> = serde_json::from_slice(text).ok();
    plain.map(|plain| plain.0)
}

/// Returns whether a condition holds for a value and everything in it.
pub fn all(value: &Value, holds: &impl Fn(&Value) -> bool) -> bool {
    holds(value)
        && match value {
            Value::Array(list) => list.iter().all(|inner| all(inner, holds)),
            Value::Object(members) => members.values().all(|inner| all(inner, holds)),
            _ => true,
        }
}

struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build).map(Self)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON without repeated keys")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Plain(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        // In order, which serde_json keeps or not as another crate of the workspace asks.
        let mut members = BTreeMap::new();
        while let Some((key, Plain(value))) = access.next_entry::<String, Plain>()? {
            if members.insert(key, value).is_some() {
                return Err(A::Error::custom("a repeated key"));
            }
        }
        Ok(Value::Object(Map::from_iter(members)))
    }
}
