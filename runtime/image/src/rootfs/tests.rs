use super::*;
use rstest::rstest;

fn overlay(options: &[&str]) -> Result<RootFs, MountError> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    RootFs::from_mounts(&[Mount { kind: "overlay", source: "overlay", options: &options }])
}

#[test]
fn layers_come_bottom_first() {
    let root =
        overlay(&["index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"]).unwrap();
    assert_eq!(root.layers, [Path::new("/s/1/fs"), Path::new("/s/2/fs")]);
    assert_eq!(root.upper.as_deref(), Some(Path::new("/s/3/fs")));
    assert!(!root.read_only);
}

#[test]
fn an_overlay_without_upper_is_read_only() {
    assert!(overlay(&["lowerdir=/b:/a"]).unwrap().read_only);
}

#[rstest]
#[case::colon(r"lowerdir=/a\:b:/c", &["/c", "/a:b"])]
#[case::comma(r"lowerdir=/a\,b:/c", &["/c", "/a,b"])]
#[case::backslash(r"lowerdir=/a\\:/c", &["/c", r"/a\"])]
#[case::equals(r"lowerdir=/a=b", &["/a=b"])]
#[case::joined(r"volatile,lowerdir=/a:/b,ro", &["/b", "/a"])]
#[case::unicode("lowerdir=/ä:/b", &["/b", "/ä"])]
fn escapes_are_understood(#[case] option: &str, #[case] layers: &[&str]) {
    let expected: Vec<PathBuf> = layers.iter().map(PathBuf::from).collect();
    assert_eq!(overlay(&[option]).unwrap().layers, expected);
}

#[rstest]
#[case("userxattr")]
#[case("metacopy=on")]
#[case("redirect_dir=on")]
#[case("uidmap=0:100000:65536")]
#[case("lowerdir+=/x")]
#[case("datadir+=/x")]
#[case("lowerdir=/a::/b")]
#[case("lowerdir=")]
#[case("context=\"system_u:object_r:x\"")]
fn options_that_change_the_content_are_refused_by_name(#[case] option: &str) {
    assert_eq!(overlay(&["lowerdir=/a", option]), Err(MountError::Option(option.to_owned())));
}

#[test]
fn a_bind_for_reading_is_a_layer_and_one_for_writing_is_not() {
    let bind = |mode: &str| {
        let options = ["rbind".to_owned(), mode.to_owned()];
        RootFs::from_mounts(&[Mount { kind: "bind", source: "/s/1/fs", options: &options }]).unwrap()
    };
    let folder = PathBuf::from("/s/1/fs");
    assert_eq!(bind("ro"), RootFs { layers: vec![folder.clone()], upper: None, read_only: true });
    assert_eq!(bind("rw"), RootFs { layers: Vec::new(), upper: Some(folder), read_only: false });
}

#[test]
fn other_snapshotters_are_refused_by_name() {
    let mount = |kind| Mount { kind, source: "/dev/dm-3", options: &[] };
    assert_eq!(RootFs::from_mounts(&[mount("ext4")]), Err(MountError::Kind("ext4".into())));
    assert_eq!(RootFs::from_mounts(&[mount("erofs"), mount("overlay")]), Err(MountError::Count(2)));
    assert_eq!(RootFs::from_mounts(&[]), Err(MountError::Count(0)));
}

#[test]
fn folders_must_be_absolute_and_there_must_be_one() {
    assert_eq!(overlay(&["lowerdir=1/fs"]), Err(MountError::Relative("1/fs".into())));
    assert_eq!(overlay(&["upperdir=/u"]), Err(MountError::NoLayers));
}
