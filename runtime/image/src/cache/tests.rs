use super::*;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Barrier, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

/// A cache with a stand-in for mkfs.erofs that notes each call, and layers to convert.
struct Fixture {
    folder: tempfile::TempDir,
    /// Held for as long as the test runs.
    _turn: Turn,
}

/// A child has our open files, with their locks, until it runs its program: a test in which an image must not be in
/// use runs while no other test starts children.
static TURNS: RwLock<()> = RwLock::new(());

enum Turn {
    WithOthers { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// Writes the least that passes for an image: a magic number at 1024 in a file of `$size` bytes.
const TOOL: &str = r#"#!/bin/sh
echo call >> "$(dirname "$0")/calls"
for argument; do previous=$file; file=$layer; layer=$argument; done
truncate -s 1024 "$file"
printf '\342\341\365\340' >> "$file"
cat "$layer"/* /dev/zero | head -c 1000000 >> "$file"
"#;

impl Fixture {
    fn new() -> Self {
        Self::with_tool(TOOL)
    }

    fn alone() -> Self {
        let turn = Turn::Alone { _guard: TURNS.write().unwrap_or_else(PoisonError::into_inner) };
        Self::with_turn(TOOL, turn)
    }

    fn with_tool(script: &str) -> Self {
        let turn = Turn::WithOthers { _guard: TURNS.read().unwrap_or_else(PoisonError::into_inner) };
        Self::with_turn(script, turn)
    }

    fn with_turn(script: &str, turn: Turn) -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap(), _turn: turn };
        fixture.set_tool(script);
        fixture
    }

    /// Another process writes the script: a file that we, or a child that is just being started, had open for
    /// writing could not be run.
    fn set_tool(&self, script: &str) {
        let write = "printf %s \"$1\" > \"$0\".new && chmod 755 \"$0\".new && mv \"$0\".new \"$0\"";
        let status =
            Command::new("sh").arg("-c").arg(write).arg(self.path("tool")).arg(script).status().unwrap();
        assert!(status.success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cache(&self) -> LayerCache {
        self.cache_of(1 << 40)
    }

    fn cache_of(&self, limit: u64) -> LayerCache {
        LayerCache::open(&self.path("cache"), limit, 2).unwrap().with_tool(&self.path("tool"))
    }

    fn layer(&self, name: &str) -> PathBuf {
        let layer = self.path(name);
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join("file"), name).unwrap();
        layer
    }

    fn calls(&self) -> usize {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default().lines().count()
    }

    /// What is in the cache's folder, without the lock.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("cache")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lock").collect()
    }

    fn key(&self, layer: &Path) -> String {
        LayerKey::of(layer).unwrap().as_str().to_owned()
    }

    fn last_used(&self, layer: &Path, seconds_ago: u64) {
        let path = self.path("cache").join(self.key(layer) + ".erofs");
        let time = SystemTime::now() - Duration::from_secs(seconds_ago);
        File::open(path).unwrap().set_modified(time).unwrap();
    }
}

fn one(cache: &LayerCache, layer: &Path) -> Result<LayerImage, LayerError> {
    cache.layers(&[layer.to_owned()]).map(|images| images.into_iter().next().unwrap())
}

#[test]
fn a_layer_is_converted_once_and_opened_for_reading_only() {
    let fixture = Fixture::new();
    let layer = fixture.layer("layer");
    let image = one(&fixture.cache(), &layer).unwrap();
    assert_eq!(image.bytes() % 4096, 0);
    assert!(std::io::Write::write(&mut image.file(), b"x").is_err());
    one(&fixture.cache(), &layer).unwrap();
    assert_eq!(fixture.calls(), 1);
    assert_eq!(fixture.names(), [fixture.key(&layer) + ".erofs"]);
}

#[test]
fn layers_come_in_the_order_asked_for() {
    let fixture = Fixture::new();
    let layers: Vec<PathBuf> = (0..7).map(|n| fixture.layer(&format!("layer{n}"))).collect();
    one(&fixture.cache(), &layers[3]).unwrap();
    let images = fixture.cache().layers(&layers).unwrap();
    for (image, layer) in images.iter().zip(&layers) {
        let mut content = vec![0; 6];
        std::os::unix::fs::FileExt::read_exact_at(image.file(), &mut content, 1028).unwrap();
        assert_eq!(Path::new(std::str::from_utf8(&content).unwrap()), layer.file_name().unwrap());
    }
    assert_eq!((images.len(), fixture.calls()), (7, 7));
}

#[test]
fn twenty_at_once_convert_once() {
    let fixture = Fixture::with_tool(&TOOL.replace("truncate", "sleep 0.3; truncate"));
    let layer = fixture.layer("layer");
    let start = Barrier::new(20);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                start.wait();
                one(&fixture.cache(), &layer).unwrap();
            });
        }
    });
    assert_eq!(fixture.calls(), 1);
}

#[test]
fn a_failed_maker_leaves_nothing_and_the_next_one_tries_again() {
    let fixture = Fixture::with_tool("#!/bin/sh\necho half > \"$4\"\necho 'cannot do it' >&2\nexit 3\n");
    let layer = fixture.layer("layer");
    let error = one(&fixture.cache(), &layer).unwrap_err();
    assert!(matches!(error, LayerError::ToolFailed { .. }), "{error}");
    assert!(error.to_string().contains("cannot do it"), "{error}");
    assert_eq!(fixture.names(), [""; 0]);
    fixture.set_tool(TOOL);
    one(&fixture.cache(), &layer).unwrap();
}

#[test]
fn waiters_take_over_from_a_maker_that_failed() {
    let fail_first = TOOL.replace(
        "for argument",
        "if mkdir \"$(dirname \"$0\")/first\"; then sleep 0.3; exit 1; fi\nfor argument",
    );
    let fixture = Fixture::with_tool(&fail_first);
    let layer = fixture.layer("layer");
    let start = Barrier::new(8);
    let results: Vec<bool> = std::thread::scope(|scope| {
        let users: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    one(&fixture.cache(), &layer).is_ok()
                })
            })
            .collect();
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|ok| **ok).count(), 7);
    assert_eq!(fixture.calls(), 2);
}

#[test]
fn what_dead_makers_left_is_used_by_nobody_and_goes() {
    let fixture = Fixture::alone();
    let (layer, other) = (fixture.layer("layer"), fixture.layer("other"));
    let cache = fixture.cache();
    for name in [fixture.key(&layer), fixture.key(&other), "unkept-1-1".into()] {
        std::fs::write(fixture.path("cache").join(name + ".making"), vec![1; 3_000_000]).unwrap();
    }
    let image = one(&cache, &layer).unwrap();
    assert!(image.bytes() < 2_000_000);
    assert_eq!(fixture.names(), [fixture.key(&layer) + ".erofs"]);
}

#[test]
fn a_maker_at_work_is_left_alone() {
    let fixture = Fixture::new();
    let cache = fixture.cache();
    let path = fixture.path("cache").join("busy.making");
    let busy = File::create(&path).unwrap();
    busy.lock().unwrap();
    one(&cache, &fixture.layer("layer")).unwrap();
    assert!(path.exists());
}

#[test]
fn the_least_recently_used_goes_and_what_is_open_stays() {
    let fixture = Fixture::alone();
    let cache = fixture.cache_of(3_500_000);
    let layers: Vec<PathBuf> = (0..3).map(|n| fixture.layer(&format!("layer{n}"))).collect();
    let open = one(&cache, &layers[0]).unwrap();
    for (layer, age) in layers.iter().zip([300, 100, 200]) {
        drop(one(&cache, layer).unwrap());
        fixture.last_used(layer, age);
    }
    // Three of about a megabyte fit; for another, one has to go: not the oldest, which is open.
    let big = fixture.layer("big");
    std::fs::write(big.join("content"), vec![0; 1_000_000]).unwrap();
    drop(one(&cache, &big).unwrap());
    let mut expected: Vec<String> =
        [&layers[0], &layers[1], &big].map(|layer| fixture.key(layer) + ".erofs").to_vec();
    let mut names = fixture.names();
    expected.sort();
    names.sort();
    assert_eq!(names, expected);
    drop(open);
}

#[test]
fn an_image_that_is_removed_while_open_can_still_be_read() {
    let fixture = Fixture::new();
    let layer = fixture.layer("layer");
    let image = one(&fixture.cache(), &layer).unwrap();
    std::fs::remove_file(fixture.path("cache").join(fixture.key(&layer) + ".erofs")).unwrap();
    assert!(LayerImage::check(image.into_file()).unwrap().is_some());
    one(&fixture.cache(), &layer).unwrap();
    assert_eq!(fixture.calls(), 2);
}

#[test]
fn a_duplicate_of_the_file_keeps_the_image_in_use() {
    let fixture = Fixture::alone();
    let (layer, other) = (fixture.layer("layer"), fixture.layer("other"));
    let duplicate = one(&fixture.cache(), &layer).unwrap().file().try_clone().unwrap();
    one(&fixture.cache_of(0), &other).unwrap();
    assert!(fixture.names().contains(&(fixture.key(&layer) + ".erofs")));
    drop(duplicate);
    one(&fixture.cache_of(0), &fixture.layer("third")).unwrap();
    assert!(!fixture.names().contains(&(fixture.key(&layer) + ".erofs")));
}

#[test]
fn a_damaged_image_is_made_again() {
    let fixture = Fixture::new();
    let layer = fixture.layer("layer");
    drop(one(&fixture.cache(), &layer).unwrap());
    let path = fixture.path("cache").join(fixture.key(&layer) + ".erofs");
    File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    one(&fixture.cache(), &layer).unwrap();
    assert_eq!(fixture.calls(), 2);
}

#[test]
fn a_containers_own_layer_counts_when_it_has_content_and_is_not_kept() {
    let fixture = Fixture::new();
    let (layer, upper) = (fixture.layer("layer"), fixture.path("upper"));
    std::fs::create_dir(&upper).unwrap();
    let root = RootFs { layers: vec![layer.clone()], upper: Some(upper.clone()), read_only: false };
    assert_eq!(fixture.cache().root_fs(&root).unwrap().len(), 1);

    std::fs::write(upper.join("written"), "before").unwrap();
    let images = fixture.cache().root_fs(&root).unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(fixture.names(), [fixture.key(&layer) + ".erofs"]);
}

#[test]
fn a_root_file_system_with_nothing_in_it_is_refused() {
    let fixture = Fixture::new();
    let upper = fixture.path("upper");
    std::fs::create_dir(&upper).unwrap();
    let root = RootFs { layers: Vec::new(), upper: Some(upper), read_only: false };
    assert!(matches!(fixture.cache().root_fs(&root), Err(LayerError::Empty)));
}

#[test]
fn a_missing_tool_is_named_with_its_package() {
    let fixture = Fixture::new();
    let cache = fixture.cache().with_tool(&fixture.path("not-there"));
    let error = one(&cache, &fixture.layer("layer")).unwrap_err();
    assert!(matches!(error, LayerError::ToolMissing));
    assert!(error.to_string().contains("erofs-utils"));
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn a_tool_that_writes_no_image_is_an_error() {
    let fixture = Fixture::with_tool("#!/bin/sh\nexit 0\n");
    let error = one(&fixture.cache(), &fixture.layer("layer")).unwrap_err();
    assert!(matches!(error, LayerError::NotAnImage { .. }), "{error}");
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn a_layer_that_is_not_there_is_named() {
    let fixture = Fixture::new();
    let error = one(&fixture.cache(), &fixture.path("gone")).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("cache")).unwrap();
    std::fs::set_permissions(fixture.path("cache"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = LayerCache::open(&fixture.path("cache"), 0, 1).unwrap_err();
    assert!(matches!(error, LayerError::CacheWritable { mode: 0o777, .. }), "{error}");
}
