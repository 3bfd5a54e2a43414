"""Photos and videos in, safe checkpoints in, scene files out: functions over arrays and the nouns of `views`."""
