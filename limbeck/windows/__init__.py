"""Windows: what arrived, checked, labelled, kept as a version of the data.

    drop/ENTRY ---+                                      +--> windows/NAME            trained on, by the source `windows`
                  +--> read --> sieve --> label --> judge
    uploads ------+             (drop)   (teacher)       +--> windows/aside/NAME      why.json; a person may release it

An entry becomes a window whole or not at all; killed anywhere, the same call ends in the same windows. What a window looks
like on the disk stands in `limbeck.data.window`.
"""

from limbeck.data.window import About as About
from limbeck.data.window import Window as Window
from limbeck.data.window import read_about as read_about
from limbeck.data.window import read_keys as read_keys
from limbeck.data.window import read_window as read_window
