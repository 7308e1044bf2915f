//! A small service for the tests of this library.
#![allow(missing_docs)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Code, Command, Entity, List, Needs, Problem, Rows, Spec, Table, columns,
    service::entity::{Field, Type, Unreadable, Value, unexpected},
    text, whole,
};

/// The largest count.
pub(crate) const COUNT_MAX: i64 = (1 << 53) - 1;

text! {
    /// What a toy is called.
    pub struct Name { max: 64, pattern: "^[A-Za-z0-9][A-Za-z0-9._-]*$", otherwise: "no name" }
}

text! {
    /// Anything with an @ in it.
    pub struct Label { max: 254, pattern: "^[^@]+@[^@]+$", otherwise: "no label" }
}

whole! {
    /// How many there are.
    #[derive(Default)]
    pub struct Count("a count is": 0 => COUNT_MAX);
}

whole! {
    /// How many more, or fewer.
    pub struct More("more is": -COUNT_MAX => COUNT_MAX, except 0);
}

/// Whether there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// None.
    Out,
    /// Some.
    In,
}

impl Field for State {
    const TYPE: Type = Type::Text;

    fn value(&self) -> Value<'_> {
        Value::Text(if *self == Self::In { "In" } else { "Out" })
    }

    fn read(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Text("In") => Ok(Self::In),
            Value::Text("Out") => Ok(Self::Out),
            other => Err(unexpected("a state", other)),
        }
    }
}

/// A toy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Toy {
    /// The key.
    pub name: Name,
    /// What it says.
    pub label: Label,
    /// How many there are.
    pub count: Count,
    /// Changes by `look`.
    pub state: State,
}

impl Entity for Toy {
    type Key = Name;

    const TABLE: Table = Table {
        name: "toys",
        sqlite: &[(
            "V1__toys",
            "CREATE TABLE toys (
                name TEXT NOT NULL PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 64),
                label TEXT NOT NULL,
                count INTEGER NOT NULL CHECK (count BETWEEN 0 AND 9007199254740991),
                state TEXT NOT NULL CHECK (state IN ('Out', 'In'))
            ) STRICT, WITHOUT ROWID;",
        )],
        postgres: &[],
    };

    columns!(name, label, count, state);
}

const NO_TOY: Code = Code::fatal("no_toy", 404, "There is no such toy");

crate::service! {
    /// The service.
    pub enum Toys("toys") of Toy { Make(Make), Get(Get), Add(Add), Look(Look), List(List<Name>) }
}

/// Make a toy
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Make {
    name: Name,
    #[arg(long)]
    label: Label,
    #[serde(default)]
    #[arg(long, default_value_t)]
    count: Count,
}

/// Show a toy
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Get {
    name: Name,
}

/// Change how many there are
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Add {
    name: Name,
    count: More,
}

/// Set the state
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Look {
    name: Name,
}

impl Command<Toy> for Make {
    const SPEC: Spec = Spec::write("make").created();
    type Output = Toy;

    fn needs(&self) -> Needs<'_, Toy> {
        Needs::Key(&self.name)
    }

    fn apply(&self, rows: &mut Rows<Toy>) -> Result<Toy, Problem> {
        if rows.get(&self.name).is_some() {
            return Err(Problem::new(Code::fatal("toy_exists", 409, "The name is taken"), "it is there"));
        }
        let Self { name, label, count } = self.clone();
        let toy = Toy { name, label, count, state: State::Out };
        rows.put(toy.clone());
        Ok(toy)
    }
}

impl Command<Toy> for Get {
    const SPEC: Spec = Spec::read("get");
    type Output = Toy;

    fn needs(&self) -> Needs<'_, Toy> {
        Needs::Key(&self.name)
    }

    fn apply(&self, rows: &mut Rows<Toy>) -> Result<Toy, Problem> {
        rows.existing(&self.name, NO_TOY)
    }
}

impl Command<Toy> for Add {
    const SPEC: Spec = Spec::write("add");
    type Output = Toy;

    fn needs(&self) -> Needs<'_, Toy> {
        Needs::Key(&self.name)
    }

    fn apply(&self, rows: &mut Rows<Toy>) -> Result<Toy, Problem> {
        let mut toy = rows.existing(&self.name, NO_TOY)?;
        toy.count = Count::try_from(toy.count.get() + self.count.get())
            .map_err(|bound| Problem::new(Code::fatal("out_of_bounds", 409, "Too many or too few"), bound))?;
        rows.put(toy.clone());
        Ok(toy)
    }
}

impl Command<Toy> for Look {
    const SPEC: Spec = Spec::write("look");
    type Output = Toy;

    fn needs(&self) -> Needs<'_, Toy> {
        Needs::Key(&self.name)
    }

    fn apply(&self, rows: &mut Rows<Toy>) -> Result<Toy, Problem> {
        let mut toy = rows.existing(&self.name, NO_TOY)?;
        toy.state = if toy.count.get() > 0 { State::In } else { State::Out };
        rows.put(toy.clone());
        Ok(toy)
    }
}
