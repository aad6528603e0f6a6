"""Folders are read as Keras reads them; a photo that cannot be read is named, and never part of a split."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_distill import data


def fill(folder, *names, colour=0):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 4), (colour,) * 3).save(folder / name, "PNG")


@pytest.fixture
def folder(tmp_path):
    """Three classes of 10, 6 and 5 photos."""
    for name, count in (("cat", 10), ("ant", 6), ("bee", 5)):
        fill(tmp_path / "photos" / name, *(f"{i}.png" for i in range(count)))
    return tmp_path / "photos"


def spoil(folder):
    """Two photos more, which cannot be read; one of them sorted before all others."""
    (folder / "ant" / "00.jpg").write_bytes(b"")
    photo = folder / "cat" / "cut.jpg"
    Image.effect_noise((40, 40), 99).save(photo)
    photo.write_bytes(photo.read_bytes()[:-100])


def files(listing):
    return listing.train_files, listing.validation_files


def test_a_folder_is_split_within_each_class_and_the_same_way_again(folder):
    listing = data.list_folder(folder, seed=1, validation_split=0.2)
    assert listing.class_names == ["ant", "bee", "cat"]
    assert np.bincount(listing.validation_labels).tolist() == [1, 1, 2]
    assert np.bincount(listing.train_labels).tolist() == [5, 4, 8]
    assert not set(listing.train_files) & set(listing.validation_files)
    for file, label in zip(listing.train_files, listing.train_labels, strict=True):
        assert file.parent.name == listing.class_names[label]
    assert files(data.list_folder(folder, seed=1)) == files(listing)
    assert any(files(data.list_folder(folder, seed=s)) != files(listing) for s in (2, 3))
    assert listing.skipped == ""
    assert listing.unreadable == []


def test_photos_that_cannot_be_read_are_named_and_as_good_as_absent(folder):
    before = data.list_folder(folder, seed=3)
    spoil(folder)
    listing = data.list_folder(folder, seed=3)
    assert files(listing) == files(before)
    np.testing.assert_array_equal(listing.train_labels, before.train_labels)
    np.testing.assert_array_equal(listing.validation_labels, before.validation_labels)
    assert [(one.path.name, one.path.parent.name) for one in listing.unreadable] == [
        ("00.jpg", "ant"), ("cut.jpg", "cat"),
    ]  # fmt: skip
    said = listing.skipped
    assert said.startswith(
        f"2 of 23 photos cannot be read: {folder / 'ant' / '00.jpg'}: it is empty"
    )
    assert "cut.jpg: image file is truncated" in said


def test_strict_refuses_them(folder):
    spoil(folder)
    with pytest.raises(ValueError, match=r"2 of 23 photos cannot be read: .*00\.jpg: it is empty"):
        data.list_folder(folder, strict=True)
    with pytest.raises(ValueError, match="cannot be read"):
        data.image_folder(folder, 4, strict=True)


def test_links_that_lead_round_and_round_make_no_more_photos(folder):
    before = files(data.list_folder(folder))
    (folder / "ant" / "round").symlink_to(folder / "ant")
    assert files(data.list_folder(folder)) == before
    (folder / "ant" / "round").unlink()
    (folder / "bee" / "more").symlink_to(folder / "cat")  # links to elsewhere are followed
    assert len(data.list_folder(folder).train_files) > len(before[0])


def test_a_link_to_nothing_is_no_photo(folder):
    (folder / "bee" / "x.jpg").symlink_to(folder / "nowhere.jpg")
    assert "x.jpg: it is a link to nothing" in data.list_folder(folder).skipped


def test_of_many_that_cannot_be_read_the_first_are_named(folder):
    for i in range(8):
        (folder / "bee" / f"x{i}.jpg").write_bytes(b"")
    assert "x4.jpg" in data.list_folder(folder).skipped
    assert "; and 3 more." in data.list_folder(folder).skipped


def test_a_data_set_warns_of_what_it_leaves_out(folder):
    spoil(folder)
    with pytest.warns(UserWarning, match="2 of 23 photos cannot be read"):
        both = data.image_folder(folder, 4)
    assert len(both.unreadable) == 2
    assert sum(len(labels) for _, labels in both.train) == 17


def test_a_photo_that_goes_bad_later_stops_the_training_with_its_name(folder):
    import tensorflow as tf

    both = data.image_folder(folder, 4, cache_bytes=0)
    assert sum(len(labels) for _, labels in both.train) == 17
    both.train_files[5].write_bytes(b"")
    with pytest.raises(tf.errors.InvalidArgumentError) as stopped:
        list(both.train)
    name = both.train_files[5]
    assert (
        data.stopped_by(stopped.value) == f"Cannot read {name} as a photo: it is empty (0 bytes)."
    )
    both.train_files[5].unlink()
    with pytest.raises(tf.errors.OpError) as stopped:
        list(both.train)
    assert data.stopped_by(stopped.value) == f"There is no file {name}."
    assert data.stopped_by(ValueError("another one")) is None


def test_a_class_that_is_emptied_by_skipping_is_refused(folder):
    for file in (folder / "bee").iterdir():
        file.write_bytes(b"no photo")
    with pytest.raises(
        ValueError,
        match=r"None of the 5 photos of the class bee can be read; the first is .*0\.png",
    ):
        data.list_folder(folder)


def test_train_and_validation_folders_are_the_split(tmp_path):
    for part in ("train", "validation"):
        for name in "ab":
            fill(tmp_path / part / name, f"{part}.png")
    (tmp_path / "validation" / "a" / "broken.jpg").write_bytes(b"")
    listing = data.list_folder(tmp_path)
    assert [file.name for file in listing.train_files] == ["train.png"] * 2
    assert [file.name for file in listing.validation_files] == ["validation.png"] * 2
    assert [one.path.name for one in listing.unreadable] == ["broken.jpg"]
    fill(tmp_path / "validation" / "c", "x.png")
    with pytest.raises(ValueError, match="different classes: c is in one of them only"):
        data.list_folder(tmp_path)


def test_bad_folders_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        data.list_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="No photos in"):
        data.list_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="No photos in"):
        data.list_folder(tmp_path)
    fill(tmp_path / "cat", "1.png")
    with pytest.raises(ValueError, match=r"one class only \(cat\)"):
        data.list_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"No photos in the class folder .*dog"):
        data.list_folder(tmp_path)
    fill(tmp_path / "dog", "1.png")
    with pytest.raises(ValueError, match="Class cat has one photo only, and it takes two"):
        data.list_folder(tmp_path)
    (tmp_path / "cat" / "2.jpg").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"Class cat has one photo only that can be read \(not .*2\.jpg: it is emp"
    ):
        data.list_folder(tmp_path)


def test_a_folder_of_other_files_is_told_what_it_holds(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("1.MOV", "2.mov", "3.txt"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds other files \(2 \.mov, 1 \.txt\).*convert"):
        data.list_folder(tmp_path)
    fill(tmp_path / "dog", "1.png", "2.png")
    with pytest.raises(ValueError, match=r"class folder .*cat: .*\(2 \.mov, 1 \.txt\)"):
        data.list_folder(tmp_path)


def test_photos_of_a_telephone_are_not_passed_over(tmp_path):
    fill(tmp_path / "cat", "1.png", "2.png")
    fill(tmp_path / "dog", "1.png", "2.png")
    Image.open(tmp_path / "cat" / "1.png").save(tmp_path / "cat" / "3.tiff")
    (tmp_path / "dog" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    listing = data.list_folder(tmp_path)
    assert "1 of 6 photos cannot be read" in listing.skipped
    assert "IMG_1.HEIC: this Pillow does not read this format; convert it" in listing.skipped
    with pytest.raises(ValueError, match=r"IMG_1\.HEIC"):
        data.list_folder(tmp_path, strict=True)


def test_photos_without_class_folders_are_told_to_move(tmp_path):
    fill(tmp_path, "1.png", "2.png")
    with pytest.raises(
        ValueError, match=r"holds photos itself \(2\): move each into the sub-folder"
    ):
        data.list_folder(tmp_path)


def test_a_folder_of_splits_is_not_one_of_two_classes(tmp_path):
    for split in ("training_set", "test_set"):
        for name in ("cat", "dog"):
            fill(tmp_path / split / name, "a.png")
    with pytest.raises(ValueError, match=r"if these are splits, name them train/ and validation/"):
        data.list_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "odd"), [(b"caf\xe9", "is not in UTF-8"), (b"a\nb", "has a line break")]
)
def test_a_class_that_cannot_be_a_line_of_labels_is_refused(name, odd, folder):
    (folder / "bee").rename(folder / os.fsdecode(name))
    with pytest.raises(ValueError, match=rf"class folder '.*' {odd}: rename it"):
        data.list_folder(folder)


def test_a_large_share_leaves_each_class_a_photo_to_learn_from(folder):
    listing = data.list_folder(folder, validation_split=0.99)
    assert np.bincount(listing.train_labels).tolist() == [1, 1, 1]
    assert np.bincount(listing.validation_labels).tolist() == [5, 4, 9]


def test_classes_of_one_size_are_split_each_in_its_own_way(tmp_path):
    for name in "abcd":
        fill(tmp_path / name, *(f"{i}.png" for i in range(9)))
    held_out = data.list_folder(tmp_path).validation_files
    assert len({tuple(f.name for f in held_out if f.parent.name == name) for name in "abcd"}) > 1


def test_val_is_validation_and_hidden_folders_are_no_classes(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "both" / "train")
    shutil.copytree(folder, tmp_path / "both" / "val")
    fill(tmp_path / "both" / "train" / ".trash", "x.png")
    listing = data.list_folder(tmp_path / "both")
    assert listing.class_names == ["ant", "bee", "cat"]
    assert len(listing.train_files) == len(listing.validation_files) == 21


def test_classes_may_have_the_same_folders_beside_their_photos(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / name, "a.png")
        for more in ("indoors", "outdoors"):
            fill(tmp_path / name / more, "a.png")
    assert data.list_folder(tmp_path).class_names == ["cat", "dog"]
