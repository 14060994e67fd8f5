"""What Limbeck costs beyond the work itself: ratios measured side by side in one run, never asserted in a test."""
