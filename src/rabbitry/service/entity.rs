//! What a service keeps: one table, and one mapping between its rows and a struct, for every store.

use std::{fmt::Debug, hash::Hash};

use serde::{Serialize, de::DeserializeOwned};

/// A thing that a service keeps: a struct whose fields are the columns of one table.
///
/// The mapping is written by [`columns!`](crate::columns); the first column is the key.
pub trait Entity: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What tells one entity from another. Pages and locks follow its order, which must be that of the column: by bytes
    /// for text, by value for numbers. It is never an empty text, nor `i64::MIN`.
    type Key: Field + Ord + Hash + Debug;

    /// The table.
    const TABLE: Table;

    /// The columns and their types, the key first.
    fn columns() -> Vec<(&'static str, Type)>;

    /// The key.
    fn key(&self) -> &Self::Key;

    /// The values of the columns, in their order.
    fn values(&self) -> Vec<Value<'_>>;

    /// Reads a row.
    ///
    /// # Errors
    /// [`Unreadable`] if a column holds what its field cannot be.
    fn read(row: Vec<Value<'_>>) -> Result<Self, Unreadable>;
}

/// Where entities are kept.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The table's name.
    pub name: &'static str,
    /// The migrations that make the table, for SQLite: name (`V1__what_it_does`) and SQL.
    pub sqlite: &'static [(&'static str, &'static str)],
    /// The same for PostgreSQL.
    pub postgres: &'static [(&'static str, &'static str)],
}

impl Table {
    /// A table whose migrations are the same for all stores: name (`V1__what_it_does`) and SQL. Columns of [`Type::Integer`] are
    /// `BIGINT`. With PostgreSQL, a database whose locale is not C finds pages faster if text keys are `COLLATE "C"`, which
    /// SQLite does not know.
    pub const fn new(name: &'static str, migrations: &'static [(&'static str, &'static str)]) -> Self {
        Self { name, sqlite: migrations, postgres: migrations }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Text in UTF-8.
    Text,
    /// A signed whole number of 64 bits.
    Integer,
}

impl Type {
    /// What comes before every key of this type: no key is an empty text, or the least of all numbers.
    pub fn before_all(self) -> Value<'static> {
        match self {
            Self::Text => Value::Text(""),
            Self::Integer => Value::Integer(i64::MIN),
        }
    }
}

/// A column's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// Of [`Type::Text`].
    Text(&'a str),
    /// Of [`Type::Integer`].
    Integer(i64),
}

/// A row that cannot be read as an entity.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// A field of an entity: one column.
///
/// Values that are valid by construction take what is stored without judging it again: a rule made stricter since must
/// not make entities unreadable.
pub trait Field: Clone + Send + Sync + 'static {
    /// What its column holds.
    const TYPE: Type;

    /// The value to be stored.
    fn value(&self) -> Value<'_>;

    /// Reads what was stored.
    ///
    /// # Errors
    /// [`Unreadable`] if it is of another type or no such value.
    fn read(value: Value<'_>) -> Result<Self, Unreadable>;
}

impl Field for String {
    const TYPE: Type = Type::Text;

    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }

    fn read(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Text(text) => Ok(text.to_owned()),
            other => Err(unexpected("text", other)),
        }
    }
}

impl Field for i64 {
    const TYPE: Type = Type::Integer;

    fn value(&self) -> Value<'_> {
        Value::Integer(*self)
    }

    fn read(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Integer(number) => Ok(number),
            other => Err(unexpected("a whole number", other)),
        }
    }
}

impl Field for bool {
    const TYPE: Type = Type::Integer;

    fn value(&self) -> Value<'_> {
        Value::Integer(i64::from(*self))
    }

    fn read(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Integer(0) => Ok(false),
            Value::Integer(1) => Ok(true),
            other => Err(unexpected("0 or 1", other)),
        }
    }
}

impl<T: Field> Field for Option<T> {
    const TYPE: Type = T::TYPE;

    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::value)
    }

    fn read(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Null => Ok(None),
            value => T::read(value).map(Some),
        }
    }
}

/// What a column holds instead of what was expected.
pub fn unexpected(expected: &str, found: Value<'_>) -> Unreadable {
    Unreadable(format!("{expected} was expected, and the column holds {found:?}"))
}

/// Maps the fields of an [`Entity`] to columns of the same names; the first one is the key. Stands in its `impl`.
#[macro_export]
macro_rules! columns {
    ($key:ident $(, $field:ident)* $(,)?) => {
        fn columns() -> Vec<(&'static str, $crate::service::entity::Type)> {
            fn of<E, F: $crate::service::entity::Field>(_: fn(&E) -> &F) -> $crate::service::entity::Type {
                F::TYPE
            }
            vec![
                (stringify!($key), of(|entity: &Self| &entity.$key)),
                $((stringify!($field), of(|entity: &Self| &entity.$field))),*
            ]
        }

        fn key(&self) -> &Self::Key {
            &self.$key
        }

        fn values(&self) -> Vec<$crate::service::entity::Value<'_>> {
            use $crate::service::entity::Field;
            vec![self.$key.value() $(, self.$field.value())*]
        }

        fn read(
            row: Vec<$crate::service::entity::Value<'_>>,
        ) -> Result<Self, $crate::service::entity::Unreadable> {
            let mut values = row.into_iter();
            let mut next = || values.next().unwrap_or($crate::service::entity::Value::Null);
            Ok(Self {
                $key: $crate::service::entity::Field::read(next())?
                $(, $field: $crate::service::entity::Field::read(next())?)*
            })
        }
    };
}
