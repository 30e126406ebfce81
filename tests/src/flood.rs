//! Handshakes of SRT as fast as the system sends them, each pair from a port of its own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
};

use weir_shared::srt::{
    hello::{self, Hello, Request, Terms},
    sequence::Sequence,
    wire::Writer,
};

/// Sends an induction and a conclusion with a made-up cookie from every port of `source`; returns how many left. Blocks.
pub fn handshakes(target: SocketAddr, source: Ipv4Addr, ports: Range<u16>) -> io::Result<u64> {
    let mut sent = 0;
    for port in ports {
        let socket = match UdpSocket::bind((source, port)) {
            Ok(socket) => socket,
            // Somebody else's.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(error),
        };
        for packet in pair(u32::from(port) + 1) {
            sent += u64::from(socket.send_to(&packet, target).is_ok());
        }
    }
    Ok(sent)
}

fn pair(socket: u32) -> [Vec<u8>; 2] {
    let induction = Hello {
        version: 4,
        encryption: 0,
        extension: 2,
        first_sequence: Sequence::new(socket),
        mtu: 1500,
        window: 8192,
        request: Request::Induction,
        socket,
        cookie: 0,
    };
    let conclusion = Hello {
        version: 5,
        request: Request::Conclusion,
        cookie: socket,
        ..induction
    };
    let terms = Terms {
        version: 0x01_05_03,
        flags: Terms::TSBPD,
        receive_latency_ms: 120,
        send_latency_ms: 120,
    };
    let peer = Ipv4Addr::LOCALHOST.into();
    let requests = hello::write_request(Some(&terms), Some("show"), None);
    [
        induction.write(peer),
        conclusion.write_conclusion(peer, &requests, false),
    ]
    .map(|content| Writer { destination: 0 }.handshake(0, &content))
}
