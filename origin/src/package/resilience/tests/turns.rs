//! An encoder that comes back as another one.

use super::*;

/// The encoder dies at 6 s; another one comes three seconds later and `offset_ms` later.
fn followed_by(configs: &BTreeMap<TrackId, Arc<CodecConfig>>, offset_ms: u64) -> Stage {
    let mut stage = Stage::new(1000);
    stage.switch(1);
    stage.play(1, ENCODER, 6000, |made| made);
    stage.core.forget(1);
    stage.wait(9000 + offset_ms);
    stage.switch_with(2, configs);
    let second = Encoder {
        from_ms: 9000 + offset_ms,
        zero_ms: 0,
    };
    stage.play(2, second, 14_000, |made| made);
    stage.check();
    stage
}

#[test]
fn another_sound_begins_with_its_picture_and_is_told_of_before_it() {
    let mut configs = configs();
    // 44.1 kHz instead of 48.
    let aac = AacConfig::parse(Bytes::from_static(&[0x12, 0x10])).unwrap();
    configs.insert(TrackId::AUDIO, Arc::new(CodecConfig::Aac(aac)));
    for offset_ms in [0, 7, 14, 21, 28] {
        let stage = followed_by(&configs, offset_ms);
        let [turn] = &stage.turns[..] else {
            panic!("{:?}", stage.turns)
        };
        assert_eq!((&turn.tracks[..], stage.sounds), (&[TrackId::AUDIO][..], 1));
        let (pictures, sounds) = (stage.of(TrackKind::Video), stage.of(TrackKind::Audio));
        let first = pictures[turn.shown[0]];
        assert!(first.key && !first.filler && first.dts == turn.at, "{first:?} {turn:?}");
        let before = pictures[turn.shown[0] - 1];
        assert!(
            before.filler,
            "told together with the last of what was held: {before:?}"
        );
        let newcomers = sounds.iter().filter(|shown| !shown.filler && shown.at_ms > 9500);
        let half = MediaTime::from_millis(12);
        let (early, next) = (
            newcomers.clone().find(|shown| shown.dts + half < turn.at),
            newcomers.clone().next(),
        );
        assert_eq!(early, None);
        assert!(
            next.unwrap().dts < turn.at + MediaTime::from_millis(40),
            "{next:?} {turn:?}"
        );
    }
}

#[test]
fn another_picture_is_told_of_with_the_one_before_it() {
    let mut record = avc::tests::X264_720P30.to_vec();
    (record[3], record[11]) = (0x20, 0x20);
    let another = Arc::new(CodecConfig::Avc(AvcConfig::parse(record.into()).unwrap()));
    let mut configs = configs();
    configs.insert(TrackId::VIDEO, another.clone());
    let stage = followed_by(&configs, 7);
    assert_eq!(stage.turns.len(), 1);
    assert_eq!(stage.turns[0].tracks, [TrackId::VIDEO]);
    assert_eq!(stage.configured.last().unwrap().1, another);
    assert_eq!(
        stage.of(TrackKind::Video)[stage.turns[0].shown[0]].dts,
        stage.turns[0].at
    );
    // The same encoder again changes nothing, and nothing is told.
    assert!(followed_by(&self::configs(), 7).turns.is_empty());
}
