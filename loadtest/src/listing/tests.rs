use super::*;
use crate::content::{Content, Shape};

const NOW: Moment = Moment(1_795_000_000_000_000);

fn content() -> Content {
    Content::new(Shape::default(), NOW)
}

fn text(content: &Content, parts: u64) -> String {
    write::write(&content.playlist(&content.renditions()[0], parts))
}

#[test]
fn a_listing_finds_parts_rolls_over_and_knows_what_is_gone() {
    let content = content();
    let parts = content.parts_at(NOW) / 5 * 5;
    let listing = Listing::new(content.playlist(&content.renditions()[0], parts + 2), 1);
    let open = content.edge(parts).open.0;
    assert_eq!(listing.end, Position::new(open, 2));
    assert!(matches!(listing.find(Position::new(open, 1)), Find::Listed(p) if p.at.part.0 == 1));
    assert_eq!(listing.find(Position::new(open, 2)), Find::NotYet);
    assert!(matches!(listing.find(Position::new(open - 1, 5)), Find::Listed(p) if p.at == Position::new(open, 0)));
    assert_eq!(listing.find(Position::new(open - 9, 0)), Find::Gone);
    let fresh = Listing::new(content.playlist(&content.renditions()[0], parts), 2);
    assert_eq!(fresh.find(Position::new(open - 1, 5)), Find::NotYet);
    assert_eq!(listing.faults, []);
}

#[test]
fn a_player_joins_at_an_independent_part_behind_the_hold_back() {
    let content = content();
    let parts = content.parts_at(NOW) / 5 * 5;
    let open = content.edge(parts).open.0;
    let join = |extra| Listing::new(content.playlist(&content.renditions()[0], parts + extra), 1).join();
    assert_eq!(join(2), Some(Position::new(open - 1, 0)));
    assert_eq!(join(3), Some(Position::new(open, 0)));
}

#[test]
fn the_same_bytes_are_read_once_and_different_deltas_meet_again() {
    let content = content();
    let n = content.parts_at(NOW);
    let video = &content.renditions()[0];
    let mut shelf = Shelf::default();
    let delta = |n| write::write(&delta::delta(&content.playlist(video, n)));
    let first = shelf.read(text(&content, n).as_bytes(), false, None).unwrap();
    let again = shelf.read(text(&content, n).as_bytes(), false, None).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let stepped = shelf.read(delta(n + 1).as_bytes(), false, Some(&first)).unwrap();
    let stepped = shelf.read(delta(n + 2).as_bytes(), false, Some(&stepped)).unwrap();
    let jumped = shelf.read(delta(n + 2).as_bytes(), false, Some(&first)).unwrap();
    let full = shelf.read(text(&content, n + 2).as_bytes(), false, None).unwrap();
    assert!(Arc::ptr_eq(&stepped, &jumped) && Arc::ptr_eq(&stepped, &full));
    assert_eq!(
        shelf.read(delta(n).as_bytes(), false, None).unwrap_err(),
        Unreadable::NothingToMerge
    );
}

#[test]
fn a_shelf_stays_small() {
    let content = content();
    let n = content.parts_at(NOW);
    let mut shelf = Shelf::default();
    for parts in n..n + 3000 {
        shelf.read(text(&content, parts).as_bytes(), false, None).unwrap();
    }
    assert!(shelf.young.len() + shelf.old.len() <= 2 * GENERATION);
    assert!(shelf.contents.len() <= 3 * GENERATION, "{}", shelf.contents.len());
}

#[test]
fn a_gzip_bomb_is_refused() {
    use std::io::Write as _;
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..20 {
        zip.write_all(&[b'\n'; 1 << 20]).unwrap();
    }
    let mut shelf = Shelf::default();
    assert_eq!(
        shelf.read(&zip.finish().unwrap(), true, None).unwrap_err(),
        Unreadable::Gzip
    );
    assert_eq!(shelf.read(b"no gzip", true, None).unwrap_err(), Unreadable::Gzip);
}

#[test]
fn documents_that_break_rules_are_named() {
    let content = content();
    let good = text(&content, content.parts_at(NOW) / 5 * 5 + 2);
    let broken = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        let listing = Listing::new(parse::parse(&good.replace(from, to)).unwrap(), 0);
        listing.faults.iter().map(|fault| fault.rule.id()).collect::<Vec<_>>()
    };
    assert_eq!(broken("CAN-BLOCK-RELOAD=YES", "X=1"), ["PL-20"]);
    assert_eq!(broken("PART-HOLD-BACK=0.6", "PART-HOLD-BACK=0.3"), ["PL-15"]);
    assert_eq!(broken("PART-TARGET=0.2", "PART-TARGET=0.19"), ["PL-21"]);
    assert_eq!(broken("PART-TARGET=0.2", "PART-TARGET=0.25"), ["PL-22"]);
    assert_eq!(broken("#EXT-X-PRELOAD-HINT", "#EXT-X-NOTHING"), ["PL-26"]);
    assert_eq!(broken("#EXT-X-MAP", "#EXT-X-NOTHING"), ["PL-09"]);
    assert_eq!(broken("CAN-SKIP-UNTIL=6", "CAN-SKIP-UNTIL=5"), ["PL-18"]);
}
