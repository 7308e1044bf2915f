//! Messages that kill the session that reads them.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use lapin::BasicProperties;

use super::Scene;
use crate::support::{
    eventually,
    toys::{Toys, Worker},
    vhost::{Vhost, header},
};

/// Publishes, in frames made by hand, a message whose `correlation_id` is not UTF-8. RabbitMQ takes it; lapin cannot
/// read it and loses its connection. (AMQP 0-9-1, 2.3 and 4.2: frames, methods, content headers.)
fn publish_unreadable(vhost: &Vhost, queue: &str) {
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
    let body = b"{\"n\":1000000}";
    // Class basic, weight 0, body size, and one property: bit 10 is correlation-id.
    let header =
        [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &[0x04, 0x00, 2, 0xff, 0xfe]].concat();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_set_aside_alone() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let toys = Toys::new();
    let workers = [Worker::start(&toys, vhost.url()), Worker::start(&toys, vhost.url())];
    vhost.wait_for_consumers("toys.add", 2).await;
    for n in 0..1000 {
        if n == 500 {
            publish_unreadable(&vhost, "toys.add");
        }
        let properties = BasicProperties::default().with_message_id(format!("m{n}").into());
        vhost.publish("toys.add", b"{\"n\":1}", properties).await;
    }
    eventually("all good messages are done", async || toys.total() == (1000, 1000)).await;
    eventually("the bad one is set aside", async || vhost.ready("toys.dead").await == 1).await;
    // Afterwards the workers go on at full pace.
    vhost.publish("toys.add", b"{\"n\":1}", BasicProperties::default()).await;
    eventually("they work", async || toys.total() == (1001, 1001)).await;
    for worker in workers {
        worker.stop().await;
    }
    vhost.assert_left(&[("toys.dead", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_delivered_before_is_handled_alone() {
    let scene = Scene::start().await;
    let Scene { vhost, toys, worker, mut replies } = scene;
    worker.stop().await;
    let asking = BasicProperties::default().with_reply_to("reply.test".into());
    for n in 0..5 {
        vhost.publish("toys.add", b"{\"n\":1}", asking.clone().with_message_id(format!("m{n}").into())).await;
    }
    // Five messages are delivered and returned until they are suspected.
    for _ in 0..2 {
        let url = vhost.url_text();
        let connection =
            lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        for _ in 0..5 {
            let options = lapin::options::BasicGetOptions { no_ack: false };
            channel.basic_get("toys.add".into(), options).await.unwrap().unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
        eventually("they are back", async || vhost.ready("toys.add").await == 5).await;
    }
    let worker = Worker::start(&toys, vhost.url());
    for _ in 0..5 {
        let reply = replies.next().await;
        assert_eq!(header(&reply, "replayed"), None);
    }
    assert_eq!(toys.total(), (5, 5));
    assert_eq!(toys.memory.longest.load(std::sync::atomic::Ordering::SeqCst), 1);
    worker.stop().await;
    vhost.assert_left(&[]).await;
}
