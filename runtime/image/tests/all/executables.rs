//! Images made from one executable.

use std::fs;

use runtime_image::Store;

#[test]
fn an_executable_becomes_an_image() {
    let dir = tempfile::tempdir().unwrap();
    // Whatever it is called.
    let program = dir.path().join("prog-1.0");
    fs::write(&program, "#!elf").unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let image = store.add_executable("trimtab/builtin:v1", &program, &["/prog", "serve"]).unwrap();
    assert_eq!(fs::read(image.layers[0].join("prog")).unwrap(), b"#!elf");
    assert_eq!(store.get("trimtab/builtin:v1").unwrap().as_ref(), Some(&image));
    assert_eq!(store.add_executable("trimtab/builtin:v1", &program, &["/prog", "serve"]).unwrap(), image);
    fs::write(&program, "#!elf two").unwrap();
    let second = store.add_executable("trimtab/builtin:v1", &program, &["/prog", "serve"]).unwrap();
    assert_ne!(second.id, image.id);
    assert_eq!(store.list().unwrap().len(), 2);
    // In use keeps an image without names; nothing else does.
    store.collect(std::slice::from_ref(&image.id)).unwrap();
    assert!(store.get(&image.id).unwrap().is_some());
    store.remove("trimtab/builtin:v1").unwrap();
    store.collect(&[]).unwrap();
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_layer_that_is_a_link_does_not_keep_what_was_written_over_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("prog");
    let store = Store::open(&dir.path().join("images")).unwrap();
    let add = |text: &str| {
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        store.add_executable("trimtab/builtin:v1", &program, &["/prog"]).unwrap()
    };
    let one = add("#!one");
    let two = add("#!two, in place");
    assert_ne!(one.layers, two.layers);
    fs::remove_file(&program).unwrap();
    assert_eq!(add("#!one"), one);
    assert_eq!(fs::read(one.layers[0].join("prog")).unwrap(), b"#!one");
    assert_eq!(fs::read(two.layers[0].join("prog")).unwrap(), b"#!two, in place");
}
