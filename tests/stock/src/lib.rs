use rabbitry::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

text! { pub struct Sku { max: 20, pattern: "^[A-Z0-9-]+$", otherwise: "a SKU has 1 to 20 of A-Z, 0-9 and -" } }
whole! { pub struct Count("a count is": 0 => 1_000_000); }

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    pub sku: Sku,
    pub on_hand: Count,
}

const V1: &str = "CREATE TABLE items (sku TEXT NOT NULL PRIMARY KEY, on_hand BIGINT NOT NULL)";
impl Entity for Item {
    type Key = Sku;
    const TABLE: Table = Table::new("items", &[("V1__items", V1)]);
    columns!(sku, on_hand);
}

service! { pub enum Stock("stock") of Item { Put(Put), Reserve(Reserve), Get(Get), List(List<Sku>) } }

const NO_ITEM: Code = Code::fatal("no_item", 404, "There is no such item");
const SOLD_OUT: Code = Code::fatal("sold_out", 409, "There are not so many");

/// Say how many there are
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Put {
    pub sku: Sku,
    pub on_hand: Count,
}
impl Command<Item> for Put {
    const SPEC: Spec = Spec::write("put");
    type Output = Item;
    fn needs(&self) -> Needs<'_, Item> {
        Needs::Key(&self.sku)
    }
    fn apply(&self, items: &mut Rows<Item>) -> Result<Item, Problem> {
        let item = Item { sku: self.sku.clone(), on_hand: self.on_hand };
        items.put(item.clone());
        Ok(item)
    }
}

/// Take some from the stock
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    pub sku: Sku,
    pub count: Count,
}
impl Command<Item> for Reserve {
    const SPEC: Spec = Spec::write("reserve");
    type Output = Item;
    fn needs(&self) -> Needs<'_, Item> {
        Needs::Key(&self.sku)
    }
    fn apply(&self, items: &mut Rows<Item>) -> Result<Item, Problem> {
        let mut item = items.existing(&self.sku, NO_ITEM)?;
        let left = Count::try_from(item.on_hand.get() - self.count.get());
        item.on_hand = left.map_err(|_| Problem::new(SOLD_OUT, format!("there are {}", item.on_hand)))?;
        items.put(item.clone());
        Ok(item)
    }
}

/// Show an item
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Get {
    pub sku: Sku,
}
impl Command<Item> for Get {
    const SPEC: Spec = Spec::read("get");
    type Output = Item;
    fn needs(&self) -> Needs<'_, Item> {
        Needs::Key(&self.sku)
    }
    fn apply(&self, items: &mut Rows<Item>) -> Result<Item, Problem> {
        items.existing(&self.sku, NO_ITEM)
    }
}
