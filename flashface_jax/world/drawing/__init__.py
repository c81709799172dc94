"""Drawing a person in a scene, part by part."""
