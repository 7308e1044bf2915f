//! Frames of AMQP 0-9-1 in a stream of bytes, however it is split (2.3 of the specification).
//!
//! Of a frame no more is kept than is needed to know what it is; its rest streams through.

/// A method.
pub const METHOD: u8 = 1;
/// The properties of a message.
pub const HEADER: u8 = 2;
/// A part of a message's body.
pub const BODY: u8 = 3;

/// Class and method of `basic.publish`, as of `basic.deliver` below, whose routing keys are read.
pub const PUBLISH: (u16, u16) = (60, 40);
pub const DELIVER: (u16, u16) = (60, 60);

const FRAME_END: u8 = 0xce;
/// Type, channel and size.
const PREFIX_BYTES: usize = 7;
/// A client begins with these four bytes and its version.
const PROTOCOL: &[u8] = b"AMQP";
const PROTOCOL_HEADER_BYTES: usize = 8;
/// A broker begins with `connection.start`: a method on channel 0.
const FIRST_FRAME: &[u8] = &[METHOD, 0, 0];
/// The longest start of a method that ends with its routing key: class and method, consumer tag, delivery tag,
/// redelivered, exchange, routing key.
const METHOD_HEAD_MAX: usize = 4 + 256 + 8 + 1 + 256 + 256;

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    /// Bytes of its payload.
    pub size: usize,
    /// Class and method, of a method.
    pub method: Option<(u16, u16)>,
    /// Of a publish or a delivery.
    pub routing_key: Option<String>,
}

/// A piece of the stream. All pieces together are the stream.
#[derive(Debug)]
pub enum Part<'a> {
    /// A frame, and its first bytes.
    Begin(&'a Frame, &'a [u8]),
    /// More bytes of that frame.
    Rest(&'a [u8]),
    /// The protocol header; or anything, if the stream is not AMQP.
    Outside(&'a [u8]),
}

/// Reads one direction of a connection.
#[derive(Debug, Default)]
pub struct Frames {
    state: State,
    /// The beginning of a frame that is not known yet: at most [`PREFIX_BYTES`] + [`METHOD_HEAD_MAX`].
    held: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Start,
    Between,
    Within {
        left: usize,
    },
    /// Another protocol, or frames that do not end where they should: everything is let through.
    Foreign,
}

impl Frames {
    /// Takes the next bytes, and shows the pieces that are known by now.
    pub fn feed(&mut self, mut bytes: &[u8], mut show: impl FnMut(Part<'_>)) {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Foreign => {
                    show(Part::Outside(bytes));
                    bytes.len()
                }
                State::Within { left } => {
                    let part = &bytes[..left.min(bytes.len())];
                    show(Part::Rest(part));
                    self.state = after(part, left);
                    part.len()
                }
                State::Start => {
                    self.held.push(bytes[0]);
                    self.start(&mut show);
                    1
                }
                State::Between => {
                    let missing = self.head_bytes() - self.held.len();
                    let part = &bytes[..missing.min(bytes.len())];
                    self.held.extend_from_slice(part);
                    self.begin(&mut show);
                    part.len()
                }
            };
            bytes = &bytes[taken..];
        }
    }

    /// The bytes that are still held, for when the stream ends.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn start(&mut self, show: &mut impl FnMut(Part<'_>)) {
        if self.held.starts_with(PROTOCOL) {
            if self.held.len() == PROTOCOL_HEADER_BYTES {
                show(Part::Outside(&self.finish()));
                self.state = State::Between;
            }
        } else if self.held == FIRST_FRAME {
            self.state = State::Between;
        } else if !PROTOCOL.starts_with(&self.held) && !FIRST_FRAME.starts_with(&self.held) {
            show(Part::Outside(&self.finish()));
            self.state = State::Foreign;
        }
    }

    /// How many bytes tell what the frame is, as far as is known.
    fn head_bytes(&self) -> usize {
        match self.held.first_chunk::<PREFIX_BYTES>() {
            Some(prefix) if prefix[0] == METHOD => PREFIX_BYTES + size(prefix).min(METHOD_HEAD_MAX),
            _ => PREFIX_BYTES,
        }
    }

    fn begin(&mut self, show: &mut impl FnMut(Part<'_>)) {
        if self.held.len() < self.head_bytes() {
            return;
        }
        let held = self.finish();
        let frame = describe(&held);
        self.state = State::Within { left: PREFIX_BYTES + frame.size + 1 - held.len() };
        show(Part::Begin(&frame, &held));
    }
}

fn after(part: &[u8], left: usize) -> State {
    match left - part.len() {
        0 if part.last() == Some(&FRAME_END) => State::Between,
        0 => State::Foreign,
        left => State::Within { left },
    }
}

fn size(prefix: &[u8; PREFIX_BYTES]) -> usize {
    u32::from_be_bytes([prefix[3], prefix[4], prefix[5], prefix[6]]) as usize
}

fn describe(held: &[u8]) -> Frame {
    let (prefix, payload) = held.split_first_chunk::<PREFIX_BYTES>().expect("a head has its prefix");
    let (kind, channel) = (prefix[0], u16::from_be_bytes([prefix[1], prefix[2]]));
    let ids = payload.first_chunk::<4>().filter(|_| kind == METHOD);
    let method = ids.map(|ids| (u16::from_be_bytes([ids[0], ids[1]]), u16::from_be_bytes([ids[2], ids[3]])));
    let routing_key = method.and_then(|method| routing_key(method, &payload[4..]));
    Frame { kind, channel, size: size(prefix), method, routing_key }
}

fn routing_key(method: (u16, u16), arguments: &[u8]) -> Option<String> {
    let after_reserved_or_tag = match method {
        PUBLISH => arguments.get(2..)?,
        DELIVER => short_string(arguments)?.1.get(9..)?,
        _ => return None,
    };
    let (_exchange, rest) = short_string(after_reserved_or_tag)?;
    let (key, _) = short_string(rest)?;
    Some(String::from_utf8_lossy(key).into_owned())
}

/// A string of at most 255 bytes, and what follows it.
fn short_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}
