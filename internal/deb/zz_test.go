package deb
import ("testing";"os";"time";"path/filepath";"runtime";"fmt";"io";"strings";"sync")
func TestZZ(t *testing.T){
 dir:="/tmp/qroot"
 debs,_:=filepath.Glob("/tmp/debs/*.deb")
 if _,err:=os.Stat(dir);err!=nil {
  os.MkdirAll(dir+"/etc/dpkg/dpkg.cfg.d",0o755); os.WriteFile(dir+"/etc/dpkg/dpkg.cfg.d/kolla",[]byte(kollaRules),0o644)
  st,_:=os.ReadFile("/var/lib/dpkg/status"); os.MkdirAll(dir+"/var/lib/dpkg",0o755); os.WriteFile(dir+"/var/lib/dpkg/status",st,0o644)
  dpkgInstall(t,dir,append(kollaOptions(),append([]string{"--install","--force-all"},debs...)...)...)
 }
 root:=openRoot(t,dir)
 names:=[]string{"qemu-utils","qemu-system-x86","qemu-system-common","qemu-block-extra","qemu-system-data"}
 for _,set:=range [][]string{{"qemu-utils"},{"qemu-utils","qemu-system-x86"},names} {
  best:=time.Hour; var n int; var size int64
  for range 20 {
   s:=time.Now(); n=0; size=0
   d:=openDatabase(t,root)
   for _,name:=range set { p,_:=d.Package(name); sums,err:=d.Md5sums(p); if err!=nil{t.Fatal(err)}; pr,err:=d.VerifyFiles(t.Context(),p,sums); if err!=nil||len(pr)>0{t.Fatal(pr,err)}; n+=len(sums)
     for f:=range sums { if i,e:=root.Lstat(f);e==nil{size+=i.Size()}} }
   best=min(best,time.Since(s))
  }
  t.Logf("open+verify %v: best %v, %d sums, %.1f MB",set,best,n,float64(size)/1e6)
 }
 for _,name:=range names {
  d:=openDatabase(t,root); p,_:=d.Package(name)
  f,_:=os.Create("/tmp/zz.deb"); s:=time.Now(); rep,err:=d.Repack(t.Context(),p,f); e:=time.Since(s)
  if err!=nil{t.Fatal(err)}
  end,_:=f.Seek(0,io.SeekEnd); f.Seek(0,0); s=time.Now(); a,err:=CheckArchive(f); f.Close()
  t.Logf("repack %s %v %.1f MB %v; check %v missing %d %v",name,e,float64(end)/1e6,rep,time.Since(s),len(a.Missing),err)
 }
 for _,x:=range debs { f,_:=os.Open(x); s:=time.Now(); a,err:=ReadArchive(f); r:=time.Since(s); f.Seek(0,0); s=time.Now(); _,err2:=CheckArchive(f); f.Close()
  t.Logf("%s read %v check %v %v %v %v",filepath.Base(x),r,time.Since(s),err,err2,a.Package.SourceVersion) }
 var ms runtime.MemStats; runtime.ReadMemStats(&ms); t.Log(ms.Sys>>20)
}
func rss() string { b,_:=os.ReadFile("/proc/self/status"); out:=""; for l:=range strings.Lines(string(b)) { if strings.HasPrefix(l,"VmHWM")||strings.HasPrefix(l,"VmRSS") {out+=strings.TrimSpace(l)+" "}}; return out }
func TestZZRSS(t *testing.T){
 fmt.Println("start",rss())
 var wg sync.WaitGroup
 for range 5 { wg.Go(func(){
   root,_:=os.OpenRoot("/tmp/qroot"); d,err:=OpenDatabase(root); if err!=nil{panic(err)}
   for _,n:=range []string{"qemu-utils","qemu-system-x86","qemu-block-extra"} { p,_:=d.Package(n); s,_:=d.Md5sums(p); d.VerifyFiles(t.Context(),p,s) }
   debs,_:=filepath.Glob("/tmp/debs/*.deb"); for _,x:=range debs { f,_:=os.Open(x); ReadArchive(f); f.Close()}
   NewlyUnmet(d.Packages(),nil)
 })}
 wg.Wait()
 fmt.Println("5x open+verify+read",rss())
 for i:=range 5 { wg.Go(func(){
   root,_:=os.OpenRoot("/tmp/qroot"); d,_:=OpenDatabase(root)
   for _,n:=range []string{"qemu-utils","qemu-system-x86"} { p,_:=d.Package(n); f,_:=os.Create(fmt.Sprintf("/tmp/zz%d.deb",i)); d.Repack(t.Context(),p,f); f.Seek(0,0); if _,err:=CheckArchive(f);err!=nil{panic(err)}; f.Close()}
 })}
 wg.Wait()
 fmt.Println("5x repack+check",rss())
 for range 5 { wg.Go(func(){ debs,_:=filepath.Glob("/tmp/debs/*.deb"); for _,x:=range debs { f,_:=os.Open(x); CheckArchive(f); f.Close()} })}
 wg.Wait()
 fmt.Println("5x check xz",rss())
}
