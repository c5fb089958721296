//! Envoy clusters as the user names them.

use std::str::FromStr;

use serde_json::{json, Map, Value};

/// A cluster, and the labels of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    labels: Vec<(String, String)>,
}

impl FromStr for Cluster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().trim().to_owned();
        let labels = parts.map(|part| match part.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(format!("{part:?} is not LABEL=VALUE")),
        });
        let labels = labels.collect::<Result<_, _>>()?;
        match name.is_empty() {
            true => Err("the cluster's name is empty".to_owned()),
            false => Ok(Self { name, labels }),
        }
    }
}

impl Cluster {
    /// Returns the entry of `clusters`.
    pub fn value(&self) -> Value {
        if self.labels.is_empty() {
            return json!(self.name);
        }
        let labels = self.labels.iter();
        let labels: Map<String, Value> = labels
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        json!({"name": self.name, "labels": labels})
    }
}
