//! `fleet.toml` as a JSON schema, for editors. It is made from the wire types, so that it knows every key
//! there is; what their rules ask beyond a type is for `validate` to tell.

use std::path::Path;

use fleet_agent_config::ecs;
use schemars::{Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Map, Value, json};

use super::{full, rules, wire};

/// The schema, in the draft that editors of TOML know.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with_transform(RecursiveTransform(tidy));
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<wire::File>()
        .to_value();
    schema["title"] = "fleet.toml".into();
    set_defaults(&mut schema);
    set_variables(&mut schema["definitions"]["Group"]["properties"]["ecs"]);
    set_environments(&mut schema);
    schema
}

/// TOML has no null, what serde fills in is not yet what the rules make of it, and a comment's lines
/// end where the code's do.
fn tidy(schema: &mut Schema) {
    schema.remove("default");
    schema.remove("format");
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    let null = json!({ "type": "null" });
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(mut choices)) = schema.remove("anyOf") {
        choices.retain(|choice| *choice != null);
        let key = match choices.len() {
            1 => "allOf",
            _ => "anyOf",
        };
        schema.insert(key.to_owned(), choices.into());
    }
}

/// What an environment says stands where the file says it, but for other environments. What it takes
/// out is read before that, and no key of [`wire::File`].
fn set_environments(schema: &mut Value) {
    let mut properties = schema["properties"].clone();
    if let Value::Object(properties) = &mut properties {
        properties.remove("environments");
        let unset = json!({
            "description": "Dotted keys of what all environments share that this one does without: they have their defaults again.",
            "type": "array",
            "items": { "type": "string" },
        });
        properties.insert("unset".to_owned(), unset);
    }
    schema["definitions"]["Environment"] = json!({
        "description": "Overrides what stands above, in tables of the same names. It may be empty.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    schema["properties"]["environments"]["additionalProperties"] =
        json!({ "$ref": "#/definitions/Environment" });
}

/// The variables that this build knows. Others are passed on, so that they are no mistake.
fn set_variables(table: &mut Value) {
    let known = ecs::VARIABLES.iter().map(|(name, kind, default)| {
        let mut variable = json!({ "type": "string" });
        if !default.is_empty() {
            variable["default"] = (*default).into();
        }
        if let ecs::Kind::Word(words) = kind {
            variable["enum"] = json!(words);
        }
        ((*name).to_owned(), variable)
    });
    let known = known.filter(|(name, _)| !ecs::RESERVED.contains(&name.as_str()));
    table["properties"] = Value::Object(known.collect());
}

/// One of everything, so that everything has its defaults.
const SAMPLE: &str = r#"
[cluster]
execute_command_logging = { log_group = "any" }
default_strategy = [{ group = "any" }]

[groups.any]
instance_types = ["m7i.large"]
min = 1
max = 1
desired = 1
sidecars = ["any"]
spot = { percent = 50 }
docker_volume = {}
warm_pool = {}
schedules.any = { cron = "0 0 * * *", min = 1 }

[groups.steps]
min = 1
max = 1
desired = 1
step_scaling = { out = [{ above = 75 }], in = [{ below = 30 }] }

[sidecars.any]
image = "any:1"
flush_signal = "SIGTERM"
health_check = { command = ["any"] }
"#;

/// Defaults are what is filled into the sample that it does not say itself.
fn set_defaults(schema: &mut Value) {
    let (Ok(given), Ok(file)) = (
        toml::from_str::<Value>(SAMPLE),
        toml::from_str::<wire::File>(SAMPLE),
    ) else {
        return;
    };
    let spec = rules::check(
        file.clone(),
        "any",
        &|_: &str| Err(String::new()),
        Path::new(""),
    )
    .spec;
    if let Ok(Value::Object(full)) = serde_json::to_value(full::completed(file, &spec)) {
        set_defaults_in(schema, "", &full, &given);
    }
}

/// Those of the table whose schema stands at `pointer`.
fn set_defaults_in(schema: &mut Value, pointer: &str, full: &Map<String, Value>, given: &Value) {
    for (key, value) in full {
        let given = given.get(key).unwrap_or(&Value::Null);
        let below = match resolved(schema, &format!("{pointer}/properties/{key}")) {
            Some(below) => below,
            // A table whose keys are the user's.
            None => match resolved(schema, &format!("{pointer}/additionalProperties")) {
                Some(below) => below,
                None => continue,
            },
        };
        match value {
            Value::Object(table) => set_defaults_in(schema, &below, table, given),
            Value::Array(items) => {
                if let (Some(Value::Object(item)), Some(below)) =
                    (items.first(), resolved(schema, &format!("{below}/items")))
                {
                    set_defaults_in(schema, &below, item, &given[0]);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_)
                if given.is_null() && *value != json!("") =>
            {
                let property = schema.pointer_mut(&format!("{pointer}/properties/{key}"));
                if let Some(property) = property {
                    property["default"] = value.clone();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// Where the schema at `pointer` is defined, if there is one.
fn resolved(schema: &Value, pointer: &str) -> Option<String> {
    let found = schema.pointer(pointer)?;
    let reference = found.get("$ref").or_else(|| found.pointer("/allOf/0/$ref"));
    match reference.and_then(Value::as_str) {
        Some(reference) => Some(reference.trim_start_matches('#').to_owned()),
        None => Some(pointer.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../tests/fleet.toml");

    #[test]
    fn the_file_for_editors_is_of_today() {
        let written = include_str!("../../fleet.schema.json");
        let today = format!("{:#}\n", schema());
        assert!(
            written == today,
            "write it again: fleet-bootstrap render schema >bootstrap/fleet.schema.json"
        );
    }

    #[test]
    fn editors_show_defaults_and_take_no_null() {
        let schema = schema();
        let at = |pointer: &str| {
            schema
                .pointer(pointer)
                .unwrap_or_else(|| panic!("{pointer}"))
        };
        for (pointer, default) in [
            ("Group/properties/target_capacity", json!(100)),
            ("Group/properties/detailed_monitoring", json!(false)),
            ("Volume/properties/size_gib", json!(30)),
            ("Volume/properties/type", json!("gp3")),
            ("Cluster/properties/fargate", json!(false)),
            ("Iam/properties/scope", json!("cluster")),
            ("StrategyItem/properties/weight", json!(1)),
            ("WarmPool/properties/state", json!("stopped")),
            ("Schedule/properties/time_zone", json!("Etc/UTC")),
            ("StepScaling/properties/in_minutes", json!(15)),
            ("StepOut/properties/nodes", json!(1)),
            ("Group/properties/deletion_protection", json!("none")),
            ("DrainConfig/properties/rebalance", json!("ignore")),
            ("SidecarConfig/properties/stop_timeout_seconds", json!(10)),
            ("SidecarConfig/properties/flush_timeout_seconds", json!(10)),
            ("HealthCheckConfig/properties/retries", json!(3)),
            ("LogConfig/properties/driver", json!("journald")),
        ] {
            assert_eq!(*at(&format!("/definitions/{pointer}/default")), default);
        }
        for required in ["min", "max", "desired", "ami", "instance_types"] {
            let property = at(&format!("/definitions/Group/properties/{required}"));
            assert_eq!(property.get("default"), None, "{required}");
        }
        assert!(!schema.to_string().contains("null"));
    }

    /// Everything of `value` that the schema at `node` refuses, by its path. Knows the words that
    /// these schemas use, and no others.
    fn refused(root: &Value, node: &Value, value: &Value, at: &str) -> Vec<String> {
        let Some(words) = node.as_object() else {
            return match node.as_bool() {
                Some(false) => vec![at.to_owned()],
                Some(true) | None => Vec::new(),
            };
        };
        let here = |is_right: bool| match is_right {
            true => Vec::new(),
            false => vec![at.to_owned()],
        };
        let with = |node: &Value| refused(root, node, value, at);
        let of = |word: &str| node[word].as_array().into_iter().flatten();
        let mut wrong = Vec::new();
        for (word, said) in words {
            wrong.extend(match word.as_str() {
                "$schema" | "title" | "description" | "default" | "definitions" => Vec::new(),
                // With `properties`.
                "additionalProperties" if words.contains_key("properties") => Vec::new(),
                "$ref" => {
                    let pointer = said.as_str().expect("a text").trim_start_matches('#');
                    with(root.pointer(pointer).expect("defined"))
                }
                "allOf" => of(word).flat_map(with).collect(),
                "anyOf" => here(of(word).any(|node| with(node).is_empty())),
                "oneOf" => here(of(word).filter(|node| with(node).is_empty()).count() == 1),
                "enum" => here(of(word).any(|known| known == value)),
                "const" => here(said == value),
                "minimum" => here(
                    value
                        .as_i64()
                        .is_none_or(|value| Some(value) >= said.as_i64()),
                ),
                "maximum" => here(
                    value
                        .as_i64()
                        .is_none_or(|value| Some(value) <= said.as_i64()),
                ),
                "items" => {
                    let items = value.as_array().into_iter().flatten();
                    items
                        .flat_map(|item| refused(root, said, item, at))
                        .collect()
                }
                "properties" | "additionalProperties" => {
                    let table = value.as_object().into_iter().flatten();
                    let any = Value::Bool(true);
                    let more = words.get("additionalProperties").unwrap_or(&any);
                    let known = |key: &String| node.get("properties")?.get(key);
                    table
                        .flat_map(|(key, value)| {
                            let node = known(key).unwrap_or(more);
                            refused(root, node, value, &format!("{at}/{key}"))
                        })
                        .collect()
                }
                "type" => here(match said.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("boolean") => value.is_boolean(),
                    Some("integer") => value.is_i64(),
                    _ => panic!("unknown type {said}"),
                }),
                _ => panic!("unknown word {word}"),
            });
        }
        wrong
    }

    fn refused_of(value: &Value) -> Vec<String> {
        let schema = schema();
        refused(&schema, &schema, value, "")
    }

    fn parsed(text: &str) -> Value {
        toml::from_str(text).expect("TOML")
    }

    #[test]
    fn valid_files_are_taken() {
        let full = crate::spec::FleetFile::new("fleet.toml", FILE).full("dev");
        for text in [FILE, SAMPLE, &full.expect("valid").text] {
            assert_eq!(refused_of(&parsed(text)), [""; 0]);
        }
    }

    #[test]
    fn what_has_the_wrong_type_is_refused_where_it_stands() {
        for (old, new, at) in [
            ("max = 6", "max = \"six\"", "/groups/web/max"),
            ("max = 6", "max = -1", "/groups/web/max"),
            (
                "[environments.prod.groups.web]\nmin = 2",
                "[environments.prod.groups.web]\nmin = []",
                "/environments/prod/groups/web/min",
            ),
            (
                "ami = \"ami-0123456789abcdef0\"",
                "ami = { famly = \"al2023\" }",
                "/groups/batch/ami",
            ),
            ("base = 1", "base = -1", "/cluster/default_strategy/base"),
            (
                "[environments.dev]",
                "[environments.dev]\nunset = \"groups.web.spot\"",
                "/environments/dev/unset",
            ),
            (
                "type = \"io2\"",
                "type = \"st1\"",
                "/groups/batch/root_volume/type",
            ),
            (
                "ECS_LOGLEVEL = \"warn\"",
                "ECS_LOGLEVEL = \"loud\"",
                "/groups/web/ecs/ECS_LOGLEVEL",
            ),
            (
                "[environments.dev]",
                "[environments.dev.environments.x]",
                "/environments/dev/environments",
            ),
        ] {
            assert!(FILE.contains(old), "{old}");
            let found = refused_of(&parsed(&FILE.replacen(old, new, 1)));
            assert_eq!(found, [at], "{new}");
        }
    }

    /// In each table of the file in turn: what the program refuses, editors underline.
    #[test]
    fn every_unknown_key_is_refused_as_the_program_refuses_it() {
        let mut tables = Vec::new();
        list_tables(&parsed(FILE), "", &mut tables);
        assert!(tables.len() > 20, "{tables:?}");
        for pointer in tables {
            let mut file = parsed(FILE);
            let table = file.pointer_mut(&pointer).expect("listed");
            table["unheard_of"] = true.into();
            let found = refused_of(&file);
            assert_eq!(found, [format!("{pointer}/unheard_of")]);
            let text = toml::to_string(&file).expect("TOML");
            let told = crate::spec::FleetFile::new("fleet.toml", text).spec("prod");
            let told = told.map(drop).expect_err("refused").to_string();
            assert!(told.contains("unheard_of"), "{pointer}: {told}");
        }
    }

    fn list_tables(value: &Value, pointer: &str, tables: &mut Vec<String>) {
        let Value::Object(table) = value else {
            return;
        };
        // An unused environment is only read when it is asked for.
        if pointer == "/environments/dev" {
            return;
        }
        tables.push(pointer.to_owned());
        for (key, below) in table {
            list_tables(below, &format!("{pointer}/{key}"), tables);
        }
    }
}
