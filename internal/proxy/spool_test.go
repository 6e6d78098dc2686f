package proxy

import "os"

func full(*os.File) bool { return true }
