import sys

from tests.net.net import main

sys.exit(main(sys.argv[1:]))
