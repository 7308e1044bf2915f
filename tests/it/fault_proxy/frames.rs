//! The parser and the filter, by properties: however a stream is split, the same frames are found and dropped.

use proptest::{collection::vec, prelude::*};
use wildmatch::WildMatch;

use super::proxy::{
    Class, Rule,
    counters::Tally,
    filter::Filter,
    frames::{BODY, DELIVER, Frame, Frames, HEADER, METHOD, PUBLISH, Part},
    rule::Side,
};

const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// A frame as bytes, and what the parser has to say of it.
#[derive(Debug, Clone)]
struct Sample {
    frame: Frame,
    bytes: Vec<u8>,
}

fn sample(kind: u8, channel: u16, payload: &[u8]) -> Sample {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let bytes = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat();
    Sample { frame: Frame { kind, channel, size: payload.len(), method: None, routing_key: None }, bytes }
}

fn method(channel: u16, method: (u16, u16), arguments: &[u8]) -> Sample {
    let payload = [&method.0.to_be_bytes()[..], &method.1.to_be_bytes(), arguments].concat();
    let mut sample = sample(METHOD, channel, &payload);
    sample.frame.method = Some(method);
    sample
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// A publish, or the delivery of it.
fn with_key(channel: u16, which: (u16, u16), exchange: &str, key: &str) -> Sample {
    let before = if which == PUBLISH { vec![0, 0] } else { [short("tag"), vec![0; 9]].concat() };
    let mut sample = method(channel, which, &[before, short(exchange), short(key), vec![1]].concat());
    sample.frame.routing_key = Some(key.to_owned());
    sample
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,12}", "[a-z]{255}"]
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let payload = || vec(any::<u8>(), 0..40);
    let channel = 0..4_u16;
    let one = prop_oneof![
        (channel.clone(), payload()).prop_map(|(channel, bytes)| sample(HEADER, channel, &bytes)),
        (channel.clone(), vec(any::<u8>(), 0..2000))
            .prop_map(|(channel, bytes)| sample(BODY, channel, &bytes)),
        (channel.clone(), payload()).prop_map(|(channel, bytes)| sample(200, channel, &bytes)),
        Just(sample(8, 0, &[])),
        // A method that is not read further, also one that is longer than what is kept of it.
        (channel.clone(), vec(any::<u8>(), 0..2000)).prop_map(|(channel, bytes)| method(
            channel,
            (60, 80),
            &bytes
        )),
        (channel, prop_oneof![Just(PUBLISH), Just(DELIVER)], name(), name())
            .prop_map(|(channel, which, exchange, key)| with_key(channel, which, &exchange, &key)),
    ];
    vec(one, 0..12)
}

/// Where a stream is split, as parts of its length.
fn splits() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        Just((0..10_000).map(|at| f64::from(at) / 10_000.0).collect::<Vec<_>>()),
        vec(0.0..1.0_f64, 0..20),
    ]
}

fn chunks<'a>(stream: &'a [u8], splits: &[f64]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = splits.iter().map(|at| (at * stream.len() as f64) as usize).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).map(|(start, end)| &stream[start..end]).collect()
}

fn stream(samples: &[Sample]) -> Vec<u8> {
    samples.iter().fold(PROTOCOL_HEADER.to_vec(), |stream, sample| [stream, sample.bytes.clone()].concat())
}

/// The frames that were found, what stood outside of them, and all bytes that were shown.
fn read(chunks: &[&[u8]]) -> (Vec<Frame>, Vec<u8>, Vec<u8>) {
    let (mut found, mut outside, mut all) = (Vec::new(), Vec::new(), Vec::new());
    let mut frames = Frames::default();
    for chunk in chunks {
        frames.feed(chunk, |part| match part {
            Part::Begin(frame, bytes) => {
                found.push(frame.clone());
                all.extend_from_slice(bytes);
            }
            Part::Rest(bytes) => all.extend_from_slice(bytes),
            Part::Outside(bytes) => {
                outside.extend_from_slice(bytes);
                all.extend_from_slice(bytes);
            }
        });
    }
    all.extend(frames.finish());
    (found, outside, all)
}

/// What a filter leaves of a stream of which each chunk comes under a rule of its own.
fn filtered<'a>(
    side: Side,
    chunks: impl IntoIterator<Item = (&'a [u8], &'a Rule)>,
    tally: &Tally,
) -> Vec<u8> {
    let mut filter = Filter::new(side);
    let mut passed = Vec::new();
    for (chunk, rule) in chunks {
        passed.extend(filter.pass(chunk, rule, tally));
    }
    passed.extend(filter.finish());
    passed
}

proptest! {
    #[test]
    fn any_split_gives_the_same_frames(samples in samples(), splits in splits()) {
        let stream = stream(&samples);
        let (found, outside, all) = read(&chunks(&stream, &splits));
        prop_assert_eq!(found, samples.iter().map(|sample| sample.frame.clone()).collect::<Vec<_>>());
        prop_assert_eq!(outside, PROTOCOL_HEADER);
        prop_assert_eq!(all, stream);
    }

    #[test]
    fn nothing_is_lost_of_any_bytes_and_little_is_kept(
        begins in prop_oneof![Just(&b""[..]), Just(PROTOCOL_HEADER), Just(&[1, 0, 0][..])],
        bytes in vec(any::<u8>(), 0..5000),
        splits in splits(),
    ) {
        let stream = [begins, &bytes].concat();
        prop_assert_eq!(read(&chunks(&stream, &splits)).2, &stream[..]);
        let mut frames = Frames::default();
        let mut shown = 0;
        for chunk in chunks(&stream, &splits) {
            frames.feed(chunk, |part| {
                let (Part::Begin(_, bytes) | Part::Rest(bytes) | Part::Outside(bytes)) = part;
                shown += bytes.len();
            });
        }
        prop_assert!(stream.len() - shown <= 800, "{} bytes are kept", stream.len() - shown);
    }

    #[test]
    fn messages_of_a_class_vanish_whole_and_nothing_else_does(
        samples in samples(),
        splits in splits(),
        like in prop_oneof![Just("*"), Just("a*"), Just("")],
    ) {
        let class = Class::PublishesTo(WildMatch::new(like));
        let is_meant = |sample: &Sample| {
            let frame = &sample.frame;
            frame.method == Some(PUBLISH) && WildMatch::new(like).matches(frame.routing_key.as_ref().unwrap())
        };
        let mut silenced = [false; 4];
        let (mut methods, mut frames) = (0, 0);
        let left = samples.iter().filter(|sample| {
            let silenced = &mut silenced[usize::from(sample.frame.channel)];
            if sample.frame.kind == METHOD {
                *silenced = is_meant(sample);
                methods += u64::from(*silenced);
            }
            let vanishes = *silenced && [METHOD, HEADER, BODY].contains(&sample.frame.kind);
            frames += u64::from(vanishes);
            !vanishes
        });
        let expected = stream(&left.cloned().collect::<Vec<_>>());
        let (stream, rule, tally) = (stream(&samples), Rule::Drop(class), Tally::default());
        let chunks = chunks(&stream, &splits).into_iter().map(|chunk| (chunk, &rule));
        prop_assert_eq!(filtered(Side::ToServer, chunks, &tally), expected);
        let counters = tally.snapshot();
        prop_assert_eq!((counters.publishes_dropped, counters.frames_dropped), (methods, frames));
    }
}

/// A message on one channel, with a frame of another channel between its frames.
fn message() -> Vec<Sample> {
    let body = [7; 100];
    vec![
        with_key(1, DELIVER, "", "queue"),
        sample(HEADER, 1, &[0; 14]),
        method(2, (60, 80), &[0; 9]),
        sample(BODY, 1, &body),
        sample(8, 0, &[]),
        sample(BODY, 1, &body),
    ]
}

#[test]
fn a_rule_that_changes_in_the_middle_of_a_message_makes_no_half_of_it() {
    let (samples, drop) = (message(), Rule::Drop(Class::Deliveries));
    let stream = stream(&samples);
    let begun = PROTOCOL_HEADER.len() + samples[0].bytes.len();
    for at in begun..stream.len() {
        let halves = |first, second| [(&stream[..at], first), (&stream[at..], second)];
        let tally = Tally::default();
        assert_eq!(filtered(Side::ToClient, halves(&Rule::Pass, &drop), &tally), stream, "{at}");
        assert_eq!(tally.snapshot().frames_dropped, 0);
        let left = [PROTOCOL_HEADER, &samples[2].bytes, &samples[4].bytes].concat();
        assert_eq!(filtered(Side::ToClient, halves(&drop, &Rule::Pass), &tally), left, "{at}");
        assert_eq!(tally.snapshot().frames_dropped, 4);
    }
}

#[test]
fn the_next_message_of_a_channel_passes_after_a_dropped_one() {
    let keys = ["dropped", "kept"].map(|key| vec![with_key(1, DELIVER, "", key), sample(BODY, 1, b"body")]);
    let rule = Rule::Drop(Class::DeliveriesTo(WildMatch::new("drop*")));
    let left = filtered(Side::ToClient, [(&stream(&keys.concat())[..], &rule)], &Tally::default());
    assert_eq!(left, stream(&keys[1]));
}

#[test]
fn acks_and_confirms_are_told_apart_by_their_direction() {
    let stream = stream(&[method(1, (60, 80), &[0; 9]), method(1, (60, 120), &[0; 9])]);
    let dropped = |side, class| {
        let tally = Tally::default();
        filtered(side, [(&stream[..], &Rule::Drop(class))], &tally);
        let counters = tally.snapshot();
        (counters.acks_dropped, counters.confirms_dropped)
    };
    assert_eq!(dropped(Side::ToServer, Class::Acks), (1, 0));
    assert_eq!(dropped(Side::ToClient, Class::Acks), (0, 0));
    assert_eq!(dropped(Side::ToClient, Class::Confirms), (0, 2));
    assert_eq!(dropped(Side::ToServer, Class::Confirms), (0, 0));
}

#[test]
fn a_stream_that_is_not_amqp_is_never_kept_back() {
    for stream in [&b"Q"[..], b"AMPQ", b"\x01\x00\x07", b"R\0\0\0\x08\0\0\0\0"] {
        let mut shown = Vec::new();
        Frames::default().feed(stream, |part| match part {
            Part::Outside(bytes) => shown.extend_from_slice(bytes),
            other => panic!("{other:?}"),
        });
        assert_eq!(shown, stream);
    }
}

#[test]
fn after_a_frame_that_does_not_end_where_it_should_everything_passes() {
    let mut broken = method(1, (60, 80), &[0; 9]);
    *broken.bytes.last_mut().unwrap() = 0;
    let acks = [broken, method(1, (60, 80), &[0; 9])];
    let tally = Tally::default();
    let left = filtered(Side::ToServer, [(&stream(&acks)[..], &Rule::Drop(Class::Acks))], &tally);
    assert_eq!(left, stream(&acks[1..]));
    assert_eq!(tally.snapshot().acks_dropped, 1);
}
