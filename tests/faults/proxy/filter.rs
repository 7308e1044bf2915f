//! Takes frames out of a stream.

use std::collections::HashSet;

use super::{
    counters::Tally,
    frames::{BODY, Frame, Frames, HEADER, METHOD, Part},
    rule::{Class, Rule, Side},
};

/// The filter of one direction of a connection. It reads along under every rule, so that it knows where frames begin
/// when it has to drop some.
pub struct Filter {
    side: Side,
    frames: Frames,
    /// Whether the frame that is passing is dropped.
    dropping: bool,
    /// Channels whose last method was dropped. A message's content follows its method with no other method of that
    /// channel between, though frames of other channels may come between (4.2.6 of the specification). So the content
    /// shares the fate of the method, even if the rule has changed meanwhile: there are no halves of messages.
    silenced: HashSet<u16>,
}

impl Filter {
    pub fn new(side: Side) -> Self {
        Self { side, frames: Frames::default(), dropping: false, silenced: HashSet::new() }
    }

    /// What is left of these bytes. The beginning of a frame is kept back until it is known what it is.
    pub fn pass(&mut self, bytes: &[u8], rule: &Rule, tally: &Tally) -> Vec<u8> {
        let mut passed = Vec::with_capacity(bytes.len());
        let Self { side, frames, dropping, silenced } = self;
        frames.feed(bytes, |part| {
            let bytes = match part {
                Part::Outside(bytes) => {
                    *dropping = false;
                    bytes
                }
                Part::Rest(bytes) => bytes,
                Part::Begin(frame, bytes) => {
                    *dropping = is_dropped(*side, frame, rule, silenced, tally);
                    bytes
                }
            };
            if !*dropping {
                passed.extend_from_slice(bytes);
            }
        });
        passed
    }

    /// What was kept back, for when the stream ends.
    pub fn finish(&mut self) -> Vec<u8> {
        self.frames.finish()
    }
}

fn is_dropped(side: Side, frame: &Frame, rule: &Rule, silenced: &mut HashSet<u16>, tally: &Tally) -> bool {
    let dropped = match frame.kind {
        METHOD => match rule {
            Rule::Drop(class) if class.holds(side, frame) => {
                tally.count(|counters| *counters.of(class) += 1);
                silenced.insert(frame.channel);
                true
            }
            _ => {
                silenced.remove(&frame.channel);
                false
            }
        },
        HEADER | BODY => silenced.contains(&frame.channel),
        _ => false,
    };
    if dropped {
        tally.count(|counters| counters.frames_dropped += 1);
    }
    dropped
}

impl super::Counters {
    fn of(&mut self, class: &Class) -> &mut u64 {
        match class {
            Class::Acks => &mut self.acks_dropped,
            Class::Confirms => &mut self.confirms_dropped,
            Class::Deliveries | Class::DeliveriesTo(_) => &mut self.deliveries_dropped,
            Class::Publishes | Class::PublishesTo(_) => &mut self.publishes_dropped,
        }
    }
}
