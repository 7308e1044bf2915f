//! Messages in frames made by hand, as no client library would send them (AMQP 0-9-1, 2.3 and 4.2: frames, methods,
//! content headers).

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::vhost::Vhost;

/// Properties that RabbitMQ takes and lapin cannot read: bit 10 is `correlation_id`, and it is not UTF-8.
pub const UNREADABLE: &[u8] = &[0x04, 0x00, 2, 0xff, 0xfe];

/// Publishes a message to a queue and waits for the confirm. The properties are flags and values as in a content
/// header.
pub fn publish_with_properties(vhost: &Vhost, queue: &str, properties: &[u8], body: &[u8]) {
    let url = url::Url::parse(&vhost.url_text()).unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap_or(5672));
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    read_frame(&mut socket); // connection.start
    let login = format!("\0{}\0{}", url.username(), url.password().unwrap());
    let start_ok = [&method(10, 11)[..], &[0; 4], &short("PLAIN"), &long(&login), &short("en_US")].concat();
    socket.write_all(&frame(1, 0, &start_ok)).unwrap();
    let tune = read_frame(&mut socket);
    let tune_ok = [&method(10, 31)[..], &tune[4..12]].concat();
    socket.write_all(&frame(1, 0, &tune_ok)).unwrap();
    let open = [&method(10, 40)[..], &short(vhost.name()), &[0, 0]].concat();
    socket.write_all(&frame(1, 0, &open)).unwrap();
    read_frame(&mut socket); // connection.open-ok
    socket.write_all(&frame(1, 1, &[&method(20, 10)[..], &[0]].concat())).unwrap();
    read_frame(&mut socket); // channel.open-ok
    socket.write_all(&frame(1, 1, &[&method(85, 10)[..], &[0]].concat())).unwrap();
    read_frame(&mut socket); // confirm.select-ok
    let publish = [&method(60, 40)[..], &[0, 0], &short(""), &short(queue), &[0]].concat();
    socket.write_all(&frame(1, 1, &publish)).unwrap();
    let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), properties].concat();
    socket.write_all(&frame(2, 1, &header)).unwrap();
    socket.write_all(&frame(3, 1, body)).unwrap();
    let confirmed = read_frame(&mut socket);
    assert_eq!(confirmed[..4], [0, 60, 0, 80], "basic.ack");
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[kind][..], &channel.to_be_bytes(), &length.to_be_bytes(), payload, &[0xce]].concat()
}

fn method(class: u16, method: u16) -> [u8; 4] {
    let [a, b] = class.to_be_bytes();
    let [c, d] = method.to_be_bytes();
    [a, b, c, d]
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

fn long(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// Reads a frame's payload.
fn read_frame(socket: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    socket.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; length as usize + 1];
    socket.read_exact(&mut payload).unwrap();
    payload
}
