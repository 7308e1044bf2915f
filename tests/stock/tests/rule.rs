use rabbitry::prelude::*;
use stock::{Item, Reserve};

#[test]
fn no_more_is_taken_than_there_is() {
    let mut items = Rows::default();
    items.put(Item { sku: "PEN-1".parse().unwrap(), on_hand: 5.try_into().unwrap() });
    let reserve = Reserve { sku: "PEN-1".parse().unwrap(), count: 3.try_into().unwrap() };
    assert_eq!(reserve.apply(&mut items).unwrap().on_hand.get(), 2);
    assert_eq!(reserve.apply(&mut items).unwrap_err().code.name, "sold_out");
}
