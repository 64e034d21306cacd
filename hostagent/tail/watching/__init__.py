"""What changes in directories: inotify, and polling where that says nothing."""
