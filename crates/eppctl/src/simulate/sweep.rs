//! `--sweep`: variants of a configuration that differ in weights and parameters.

use serde_json::Value;

/// A setting, and the values that it is given: `queue-scorer.weight=1,2,4`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// `PLUGIN.weight`, or `PLUGIN.PARAMETER`.
    setting: String,
    values: Vec<Value>,
}

/// The last part of a setting that is not a parameter: the weight of all of a plugin's references.
const WEIGHT: &str = "weight";

impl std::str::FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected PLUGIN.weight=VALUE,… or PLUGIN.PARAMETER=VALUE,…";
        let (setting, values) = text.split_once('=').ok_or(expected)?;
        if !setting.contains('.') || values.split(',').any(str::is_empty) {
            return Err(expected.to_owned());
        }
        // Numbers and booleans as JSON writes them; everything else is text.
        let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| text.into());
        Ok(Self {
            setting: setting.to_owned(),
            values: values.split(',').map(value).collect(),
        })
    }
}

/// A variant of a document.
#[derive(Debug)]
pub struct Variant {
    /// What differs, as ` queue-scorer.weight=2`; empty for the document itself.
    pub name: String,
    /// The document.
    pub document: Value,
}

/// Returns the variants of a document: one for each combination of values, or the document alone.
pub fn variants(document: Value, sweeps: &[Sweep]) -> Result<Vec<Variant>, String> {
    let mut variants = vec![Variant {
        name: String::new(),
        document,
    }];
    for sweep in sweeps {
        let mut more = Vec::new();
        for variant in &variants {
            for value in &sweep.values {
                let mut document = variant.document.clone();
                set(&mut document, &sweep.setting, value)?;
                let (before, setting) = (&variant.name, &sweep.setting);
                let shown = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                more.push(Variant {
                    name: format!("{before} {setting}={shown}"),
                    document,
                });
            }
        }
        variants = more;
    }
    Ok(variants)
}

/// Gives a setting a value.
fn set(document: &mut Value, setting: &str, value: &Value) -> Result<(), String> {
    let names = names(document);
    // Names may contain dots.
    let split = |(name, kind): &(String, String)| {
        let rest = |of: &str| setting.strip_prefix(of)?.strip_prefix('.');
        let parameter = rest(name).or_else(|| rest(kind))?;
        Some((name.clone(), parameter.to_owned()))
    };
    let Some((name, parameter)) = names.iter().find_map(split) else {
        let declared: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
        return Err(format!(
            "--sweep {setting}: no plugin of this name or type is declared; declared: {}",
            declared.join(", ")
        ));
    };
    if parameter == WEIGHT {
        let weighted = set_weight(document, &name, value);
        return match weighted {
            0 => Err(format!(
                "--sweep {setting}: no scheduling profile refers to {name}"
            )),
            _ => Ok(()),
        };
    }
    for plugin in list(document, "plugins") {
        if name_of(plugin) == Some(&name) {
            set_parameter(&mut plugin["parameters"], &parameter, value);
        }
    }
    Ok(())
}

/// Sets a parameter by its path, whose parts are separated by dots.
pub fn set_parameter(parameters: &mut Value, path: &str, value: &Value) {
    let mut place = parameters;
    for part in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[part];
    }
    *place = value.clone();
}

/// Sets the weights of all references to a plugin, and returns how many there are.
fn set_weight(document: &mut Value, name: &str, value: &Value) -> usize {
    let mut weighted = 0;
    for profile in list(document, "schedulingProfiles") {
        for reference in list(profile, "plugins") {
            if reference["pluginRef"] == name {
                reference[WEIGHT] = value.clone();
                weighted += 1;
            }
        }
    }
    weighted
}

/// Returns the names and types of the plugins that are declared.
fn names(document: &mut Value) -> Vec<(String, String)> {
    let plugins = list(document, "plugins").iter();
    let names = plugins.filter_map(|plugin| {
        let kind = plugin.get("type")?.as_str()?.to_owned();
        Some((name_of(plugin)?.to_owned(), kind))
    });
    names.collect()
}

/// Returns the name of a plugin, which is its type unless it has another.
fn name_of(plugin: &Value) -> Option<&str> {
    let named = plugin.get("name").and_then(Value::as_str);
    named.or_else(|| plugin.get("type")?.as_str())
}

/// Returns the entries of a list; none if there is no such list.
pub fn list<'a>(value: &'a mut Value, key: &str) -> &'a mut [Value] {
    let found = value.get_mut(key).and_then(Value::as_array_mut);
    found.map_or(&mut [], Vec::as_mut_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "plugins": [
                {"type": "queue-scorer"},
                {"type": "prefix-cache-scorer", "name": "prefix.v1", "parameters": {"hashBlockSize": 5}},
            ],
            "schedulingProfiles": [
                {"name": "a", "plugins": [{"pluginRef": "queue-scorer", "weight": 7}]},
                {"name": "b", "plugins": [{"pluginRef": "prefix.v1"}, {"pluginRef": "queue-scorer"}]},
            ],
        })
    }

    fn swept(sweeps: &[&str]) -> Result<Vec<Variant>, String> {
        let sweeps: Result<Vec<Sweep>, String> = sweeps.iter().map(|text| text.parse()).collect();
        variants(document(), &sweeps?)
    }

    #[test]
    fn a_weight_applies_to_all_references() {
        let found = swept(&["queue-scorer.weight=1,2.5"]).unwrap();
        let names: Vec<&str> = found.iter().map(|variant| variant.name.as_str()).collect();
        assert_eq!(
            names,
            [" queue-scorer.weight=1", " queue-scorer.weight=2.5"]
        );
        let profiles = &found[1].document["schedulingProfiles"];
        assert_eq!(profiles[0]["plugins"][0]["weight"], 2.5);
        assert_eq!(profiles[1]["plugins"][1]["weight"], 2.5);
        assert_eq!(profiles[1]["plugins"][0].get("weight"), None);
    }

    #[test]
    fn parameters_are_set_by_their_path_at_a_plugin_of_this_name_or_type() {
        for setting in ["prefix.v1", "prefix-cache-scorer"] {
            let found = swept(&[&format!("{setting}.hashBlockSize=64,128")]).unwrap();
            let plugin = &found[1].document["plugins"][1];
            assert_eq!(plugin["parameters"], json!({"hashBlockSize": 128}));
        }
        let found = swept(&["queue-scorer.a.b=true"]).unwrap();
        let plugin = &found[0].document["plugins"][0];
        assert_eq!(plugin["parameters"], json!({"a": {"b": true}}));
    }

    #[test]
    fn all_combinations_are_tried() {
        let found = swept(&["queue-scorer.weight=1,2", "prefix.v1.unit=a,b"]).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(found[3].name, " queue-scorer.weight=2 prefix.v1.unit=b");
        assert_eq!(swept(&[]).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_set_is_an_error_that_says_what_can() {
        for (sweep, expected) in [
            ("weight=1", "expected PLUGIN.weight"),
            ("queue-scorer.weight", "expected PLUGIN.weight"),
            ("queue-scorer.weight=1,,2", "expected PLUGIN.weight"),
            ("no-such.weight=1", "declared: queue-scorer, prefix.v1"),
        ] {
            let error = swept(&[sweep]).unwrap_err();
            assert!(error.contains(expected), "{sweep}: {error}");
        }
        let mut alone = document();
        alone["schedulingProfiles"] = json!([]);
        let sweep: Sweep = "queue-scorer.weight=1".parse().unwrap();
        let error = variants(alone, &[sweep]).unwrap_err();
        assert!(error.contains("no scheduling profile refers"), "{error}");
    }
}
