//! What the rows of a file become: a command of a service, and another one for those that succeeded.

use serde_json::{Map, Value};

use crate::{
    Spec,
    cli::{
        About,
        about::{Read, find},
    },
    service::Problem,
};

/// Columns of a file of refused rows that say why, so that it can be imported as it is.
const REASONS: [&str; 3] = ["line", "code", "detail"];

/// A field of a command's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// Whether it is a text; any other is written as in JSON.
    pub(super) is_text: bool,
    pub(super) is_required: bool,
}

/// The command that each row becomes.
#[derive(Clone)]
pub(super) struct Target {
    about: About,
    pub(super) command: Spec,
    pub(super) fields: Vec<Field>,
    /// What else a file may hold: columns of an export, and of a file of refused rows.
    ignored: Vec<String>,
    pub(super) then: Option<Then>,
}

/// The command that is sent for each row that succeeded.
#[derive(Clone)]
pub(super) struct Then {
    pub(super) command: Spec,
    fields: Vec<Field>,
}

impl Target {
    /// The target of an import.
    ///
    /// # Errors
    /// Why rows cannot become these commands.
    pub(super) fn new(services: &[About], command: &str, then: Option<&str>) -> Result<Self, String> {
        let named = |name| find(services, name).ok_or_else(|| format!("there is no command {name:?}"));
        let (about, spec) = named(command)?;
        let fields = fields(about, spec)?;
        let then = then.map(|then| {
            let (of, spec) = named(then)?;
            if of.name != about.name {
                return Err(format!("{then} is a command of another service than {command}"));
            }
            let needed = self::fields(about, spec)?;
            let has = |field: &&Field| !fields.iter().any(|known| known.name == field.name);
            match needed.iter().filter(|field| field.is_required).find(has) {
                None => Ok(Then { command: spec, fields: needed }),
                Some(field) => Err(format!("{then} needs {:?}, which {command} does not have", field.name)),
            }
        });
        let taken = |name: &str| fields.iter().any(|field| field.name == name);
        let columns = (about.columns)().into_iter().map(|(name, _)| name);
        let ignored = columns.chain(REASONS).filter(|name| !taken(name)).map(ToOwned::to_owned).collect();
        Ok(Self { about: *about, command: spec, ignored, then: then.transpose()?, fields })
    }

    pub(super) fn ignores(&self, column: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored == column)
    }

    /// Reads a row's object.
    ///
    /// # Errors
    /// What the worker would answer.
    pub(super) fn read(&self, object: &[u8]) -> Result<Read, Problem> {
        let ignored: Vec<_> = self.ignored.iter().map(String::as_str).collect();
        (self.about.read)(self.command.name, object, &ignored)
    }

    /// The payload of the second command, from that of the first one.
    ///
    /// # Errors
    /// What the worker would answer.
    pub(super) fn follow(&self, then: &Then, payload: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut members: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
        members.retain(|name, _| then.fields.iter().any(|field| field.name == *name));
        let object = crate::service::to_json(&members);
        (self.about.read)(then.command.name, &object, &[]).map(|read| read.payload)
    }
}

/// The fields of a command, in the order in which its struct has them.
fn fields(about: &About, command: Spec) -> Result<Vec<Field>, String> {
    let name = format!("{}.{}", about.name, command.name);
    let schema = (about.schema)(command.name).ok_or_else(|| format!("{name} has no schema"))?;
    let schema = Value::from(schema);
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    // The schema has them in the order of the alphabet, and the flags have them as they were written.
    let line = (about.flags)(command.name, clap::Command::new(command.name));
    let written = |name: &String| {
        let place = line.get_arguments().position(|argument| argument.get_id().as_str() == name);
        place.unwrap_or(usize::MAX)
    };
    let mut names: Vec<_> = properties.keys().cloned().collect();
    names.sort_by_key(written);
    let field = |field: String| {
        let is_text = match kind(&schema, &properties[&field]) {
            Kind::Text => true,
            Kind::Other => false,
            Kind::Nested => {
                return Err(format!("{name} cannot be imported: its field {field:?} is no single value"));
            }
        };
        Ok(Field { is_text, is_required: required(&field), name: field })
    };
    names.into_iter().map(field).collect()
}

enum Kind {
    Text,
    Other,
    /// An object or an array.
    Nested,
}

/// What a field holds, as far as it can be written in a column.
fn kind(root: &Value, schema: &Value) -> Kind {
    if let Some(definition) = schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        return root.pointer(definition).map_or(Kind::Nested, |schema| kind(root, schema));
    }
    let types: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => {
            let any = ["anyOf", "oneOf", "allOf"].iter().find_map(|of| schema[of].as_array());
            let known = any.and_then(|all| all.iter().find(|one| one["type"] != "null"));
            return match known {
                Some(one) => kind(root, one),
                None if schema["const"].is_string() => Kind::Text,
                None if schema["enum"][0].is_string() => Kind::Text,
                None => Kind::Nested,
            };
        }
    };
    if types.iter().any(|one| ["object", "array"].contains(one)) {
        Kind::Nested
    } else if types.contains(&"string") {
        Kind::Text
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::toy::Toys;

    fn target(command: &str, then: Option<&str>) -> Result<Target, String> {
        Target::new(&[About::of::<Toys>()], command, then)
    }

    #[test]
    fn fields_are_those_of_the_struct_in_its_order() {
        let target = target("toys.make", Some("toys.look")).unwrap();
        let fields: Vec<_> = target
            .fields
            .iter()
            .map(|field| (field.name.as_str(), field.is_text, field.is_required))
            .collect();
        assert_eq!(fields, [("name", true, true), ("label", true, true), ("count", false, false)]);
        assert!(target.ignores("state") && target.ignores("line") && !target.ignores("count"));
        let ann = target.read(br#"{"name":"ann","label":"a@b.c","state":"In"}"#).unwrap();
        assert_eq!(ann.keys, ["ann"]);
        assert_eq!(ann.payload, br#"{"name":"ann","label":"a@b.c","count":0}"#);
        let then = target.then.as_ref().unwrap();
        assert_eq!(target.follow(then, &ann.payload).unwrap(), br#"{"name":"ann"}"#);
    }

    #[test]
    fn what_the_second_command_needs_the_first_one_has() {
        let wrong = target("toys.look", Some("toys.add")).err().unwrap();
        assert_eq!(wrong, r#"toys.add needs "count", which toys.look does not have"#);
        assert!(target("toys.gone", None).is_err());
    }

    #[test]
    fn single_values_are_told_from_others() {
        let root = json!({"$defs": {"Size": {"oneOf": [{"type": "string", "const": "big"}]}}});
        let is_text = |schema: Value| match kind(&root, &schema) {
            Kind::Text => Some(true),
            Kind::Other => Some(false),
            Kind::Nested => None,
        };
        assert_eq!(is_text(json!({"type": ["string", "null"]})), Some(true));
        assert_eq!(is_text(json!({"$ref": "#/$defs/Size"})), Some(true));
        assert_eq!(is_text(json!({"anyOf": [{"$ref": "#/$defs/Size"}, {"type": "null"}]})), Some(true));
        assert_eq!(is_text(json!({"enum": ["a", "b"]})), Some(true));
        assert_eq!(is_text(json!({"type": ["integer", "null"]})), Some(false));
        assert_eq!(is_text(json!({"type": "boolean"})), Some(false));
        for nested in [json!({"type": "array"}), json!({"type": "object"}), json!({})] {
            assert_eq!(is_text(nested), None);
        }
    }
}
