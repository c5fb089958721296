//! The search for the place of a value in a text, with the parser that reads the text.
//!
//! serde hands over no positions, but a parser adds its position to each error that a visitor raises.
//! [`Find`] descends a path and raises an error where the path ends.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::value::problem::Step;

/// The part of a mapping's entry that is searched for. An element of a list has only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The entry's key.
    Key,
    /// The entry's value.
    Value,
}

/// Descends a path and raises an error at its end, to which the parser adds the position. The error
/// is the parser's own, of a text that it cannot read, unless [`Find::new`]'s flag is set.
#[derive(Clone)]
pub struct Find<'s> {
    steps: &'s [Step],
    target: Target,
    found: &'s Cell<bool>,
}

impl<'s> Find<'s> {
    /// Creates a search that sets a flag when it raises its error.
    pub fn new(steps: &'s [Step], target: Target, found: &'s Cell<bool>) -> Self {
        Self {
            steps,
            target,
            found,
        }
    }

    /// Returns the search below the first step.
    fn below(&self, steps: &'s [Step]) -> Self {
        Self { steps, ..*self }
    }

    fn here<E: Error>(&self) -> E {
        self.found.set(true);
        E::custom("here")
    }

    fn leaf<E: Error>(&self) -> Result<(), E> {
        match self.steps {
            [] => Err(self.here()),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.leaf()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.leaf()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else {
            return Err(self.here());
        };
        for position in 0.. {
            let element = match *first == Step::Index(position) {
                true => access.next_element_seed(self.below(rest))?,
                false => access.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if element.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.steps.split_first() else {
            return Err(self.here());
        };
        let Step::Key(wanted) = first else {
            return Ok(());
        };
        if rest.is_empty() && self.target == Target::Key {
            let find = &self;
            while access.next_key_seed(FindKey { wanted, find })?.is_some() {
                access.next_value::<IgnoredAny>()?;
            }
            return Ok(());
        }
        while let Some(key) = access.next_key::<String>()? {
            if *key == **wanted {
                access.next_value_seed(self.below(rest))?;
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Raises the error at a key.
struct FindKey<'s> {
    wanted: &'s str,
    find: &'s Find<'s>,
}

impl<'de> DeserializeSeed<'de> for FindKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FindKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        match key == self.wanted {
            true => Err(self.find.here()),
            false => Ok(()),
        }
    }
}
