//! A document whose plugins get further parameters.

use epp_core::plugins::{self, Capability};
use serde_json::{json, Value};

/// A document as a tree. What of it is not shaped as a document stays as it is, for the loader to refuse.
pub struct Document(pub Value);

impl Document {
    /// Returns a parameter of the first plugin of a type.
    pub fn get(&self, kind: &str, parameter: &str) -> Option<&Value> {
        let plugin = self.plugins().find(|plugin| is(plugin, kind))?;
        plugin.get("parameters")?.get(parameter)
    }

    /// Sets a parameter of the first plugin of a type, which is added if there is none.
    pub fn set(&mut self, kind: &str, parameter: &str, value: Value) {
        let Some(top) = self.0.as_object_mut() else {
            return;
        };
        let plugins = top.entry("plugins").or_insert(Value::Null);
        if plugins.is_null() {
            *plugins = json!([]);
        }
        let Some(plugins) = plugins.as_array_mut() else {
            return;
        };
        if !plugins.iter().any(|plugin| is(plugin, kind)) {
            plugins.push(json!({"type": kind}));
        }
        let plugin = plugins.iter_mut().find(|plugin| is(plugin, kind));
        let Some(plugin) = plugin.and_then(Value::as_object_mut) else {
            return;
        };
        let parameters = plugin.entry("parameters").or_insert(Value::Null);
        if parameters.is_null() {
            *parameters = json!({});
        }
        if let Some(parameters) = parameters.as_object_mut() {
            parameters.insert(parameter.to_owned(), value);
        }
    }

    /// Returns the type of the plugin that finds the endpoints.
    pub fn discovery(&self) -> Option<&str> {
        let mut kinds = self
            .plugins()
            .filter_map(|plugin| plugin.get("type")?.as_str());
        kinds.find(|kind| {
            let found = plugins::find(kind);
            found.is_some_and(|found| found.provides.contains(&Capability::Discovery))
        })
    }

    fn plugins(&self) -> impl Iterator<Item = &Value> {
        let plugins = self.0.get("plugins").and_then(Value::as_array);
        plugins.into_iter().flatten()
    }
}

fn is(plugin: &Value, kind: &str) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(kind)
}
